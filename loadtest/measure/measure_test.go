package measure

import (
	"math"
	"slices"
	"testing"
	"time"
)

func TestScheduleDoesNotDrift(t *testing.T) {
	for _, c := range []struct {
		rate float64
		i    int
		want time.Duration
	}{
		{1000, 0, 0}, {1000, 1, time.Millisecond}, {1000, 3_600_000, time.Hour}, {3, 3, time.Second}, {3, 3_000_000, 1e6 * time.Second},
		{7, 7_000, 1000 * time.Second}, {0.5, 1, 2 * time.Second},
	} {
		got := Schedule{c.rate}.Due(c.i)
		if d := got - c.want; d < -time.Microsecond || d > time.Microsecond {
			t.Errorf("%v/s, the %d-th: %v, want %v", c.rate, c.i, got, c.want)
		}
	}
}

func TestScheduleIsInOrder(t *testing.T) {
	p := Schedule{33_333.33}
	for i := range 100_000 {
		if d := p.Due(i+1) - p.Due(i); d < 29*time.Microsecond || d > 31*time.Microsecond {
			t.Fatalf("%d: %v", i, d)
		}
	}
}

func TestScheduleCount(t *testing.T) {
	for _, rate := range []float64{0.5, 1, 3, 999.9, 1000} {
		p := Schedule{rate}
		for _, d := range []time.Duration{0, time.Millisecond, time.Second, 90 * time.Second} {
			n := p.Count(d)
			if n > 0 && p.Due(n-1) >= d || p.Due(n) < d {
				t.Errorf("%v/s within %v: %d, of which the last is due at %v and the next at %v", rate, d, n, p.Due(n-1), p.Due(n))
			}
		}
	}
	if (Schedule{}).Open() || !(Schedule{1}).Open() {
		t.Error("a pace of 0 is a closed loop, and no other")
	}
}

func TestHistogramsMerge(t *testing.T) {
	all, even, odd := NewHistogram(), NewHistogram(), NewHistogram()
	for i := 1; i <= 10_000; i++ {
		d := time.Duration(i) * 100 * time.Microsecond
		all.Record(d)
		if i%2 == 0 {
			even.Record(d)
		} else {
			odd.Record(d)
		}
	}
	even.Merge(odd)
	if even.Count() != 10_000 || even.Max() != all.Max() {
		t.Errorf("%d, max %v", even.Count(), even.Max())
	}
	for _, q := range []float64{0.01, 0.5, 0.99, 0.999} {
		got, want := even.Quantile(q), time.Duration(q*float64(time.Second))
		if got != all.Quantile(q) || math.Abs(float64(got-want)) > float64(want)/500 {
			t.Errorf("%v: merged %v, alone %v, exactly %v", q, got, all.Quantile(q), want)
		}
	}
}

func TestHistogramBounds(t *testing.T) {
	h := NewHistogram()
	for _, d := range []time.Duration{-time.Second, 0, time.Hour} {
		h.Record(d)
	}
	if h.Count() != 3 || h.Quantile(0) > 2*time.Microsecond || h.Max() < maxLatency {
		t.Errorf("%d from %v to %v", h.Count(), h.Quantile(0), h.Max())
	}
}

func TestCurveEndsWithTheData(t *testing.T) {
	h := NewHistogram()
	if h.Curve() != nil {
		t.Error("a curve of nothing")
	}
	for i := range 1000 {
		h.Record(time.Duration(i+1) * time.Millisecond)
	}
	c := h.Curve()
	last := c[len(c)-1].Quantile
	if c[0].Quantile != 0 || last > 0.9991 || last < 0.99 {
		t.Errorf("from %v to %v", c[0].Quantile, last)
	}
	if !slices.IsSortedFunc(c, func(a, b Point) int { return int(math.Copysign(1, a.Seconds-b.Seconds)) }) {
		t.Errorf("not monotonic: %v", c)
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want float64
	}{{[]float64{3}, 3}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := Median(c.in); got != c.want {
			t.Errorf("%v: %v", c.in, got)
		}
	}
	if !math.IsNaN(Median(nil)) {
		t.Error("a median of nothing")
	}
}

func TestResult(t *testing.T) {
	run := func(rate float64, d time.Duration) *Run {
		r, h := &Run{}, NewHistogram()
		h.Record(d)
		r.Add("rate", PerSecond, rate)
		r.Latency("response", h)
		r.Latency("delivery", h)
		r.Latency("nothing", NewHistogram())
		r.Note("noisy")
		return r
	}
	r := NewResult("s", "publish", nil, []*Run{run(10, time.Millisecond), run(30, 3*time.Millisecond), run(11, 2*time.Millisecond)}, time.Second)
	if v, ok := r.Median("rate"); !ok || v != 11 {
		t.Errorf("rate %v", v)
	}
	if v, ok := r.Median("delivery p50"); !ok || math.Abs(v-0.002) > 1e-5 {
		t.Errorf("p50 %v", v)
	}
	if _, ok := r.Median("nothing p50"); ok {
		t.Error("a quantile of nothing")
	}
	if len(r.Curves) != 2 || r.Curves[0].Name != "delivery" || r.Curves[0].Count != 3 {
		t.Errorf("curves %v", r.Curves)
	}
	if notes := r.Notes(); len(notes) != 1 {
		t.Errorf("notes %q", notes)
	}
}

func TestFormat(t *testing.T) {
	for _, c := range []struct {
		unit Unit
		v    float64
		want string
	}{
		{Seconds, 0, "0"}, {Seconds, 53e-9, "53 ns"}, {Seconds, 5.26e-6, "5.3 µs"}, {Seconds, 177e-6, "177 µs"}, {Seconds, 0.0123, "12.3 ms"},
		{Seconds, 61.2, "61.2 s"}, {Bytes, 490, "490 B"}, {Bytes, 5530, "5.4 KiB"}, {Bytes, 300 << 20, "300 MiB"}, {Bytes, 24 << 30, "24 GiB"}, {PerSecond, 12345.6, "12,346/s"},
		{PerSecond, 1e6, "1,000,000/s"}, {Share, 0.123, "12.3 %"}, {Times, 0.2, "0.20×"}, {Cores, 1.5, "1.50 cores"}, {Plain, 0, "0"},
		{Plain, 999, "999"}, {Plain, -1234, "-1,234"}, {Plain, 1.04, "1.04"},
	} {
		if got := c.unit.Format(c.v); got != c.want {
			t.Errorf("%v %s: %q, want %q", c.v, c.unit, got, c.want)
		}
	}
}

func BenchmarkRecord(b *testing.B) {
	h := NewHistogram()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		h.Record(time.Duration(i%1000) * time.Microsecond)
	}
}
