//go:build linux

package scenario

import (
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"herald/loadtest/clients"
	"herald/loadtest/loop"
	"herald/loadtest/measure"
	"herald/loadtest/target"
	"herald/loadtest/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A broadcast ends once, when its last socket is reached, on any thread.
func TestBroadcasts(t *testing.T) {
	const sockets = 1000
	b := newBroadcasts(sockets)
	taken := b.record()
	for round := range int64(3 * maxSlots) {
		if !b.admits(1) {
			t.Fatal("no broadcast is admitted")
		}
		n := b.begin(loop.Now())
		if n != round || b.admits(1) {
			t.Fatalf("number %d in round %d, %d open", n, round, b.open())
		}
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for range sockets / 4 {
					b.delivered(nil, wire.Stamp{Number: uint32(n)})
				}
			})
		}
		all.Wait()
		b.delivered(nil, wire.Stamp{Number: uint32(n)}) // a duplicate
		if b.open() != 0 {
			t.Fatalf("%d open after round %d", b.open(), round)
		}
	}
	if got := taken().Count(); got != 3*maxSlots {
		t.Errorf("%d latencies", got)
	}
}

func TestBroadcastsThatFailAreAbandoned(t *testing.T) {
	b := newBroadcasts(2)
	n := b.begin(loop.Now())
	b.delivered(nil, wire.Stamp{Number: uint32(n)})
	b.abandon(n)
	b.abandon(n)
	b.delivered(nil, wire.Stamp{Number: uint32(n)}) // late
	if b.open() != 0 || !b.await(t.Context(), 0) {
		t.Errorf("%d open", b.open())
	}
	b.begin(loop.Now() - 2*abandonAfter) // never delivered
	if b.admits(1); !b.admits(1) {
		t.Error("a broadcast that never arrives blocks the others")
	}
}

func TestGrowth(t *testing.T) {
	flat, steep := make([]measure.Sample, 100), make([]measure.Sample, 100)
	for i := range flat {
		flat[i].RSS, steep[i].RSS = 100, 100+float64(i)
	}
	flat[0].RSS, flat[99].RSS = 1, 1e9 // the start, and a spike
	rss := func(s measure.Sample) float64 { return s.RSS }
	if g, ok := growth(flat, rss); g != 0 || !ok {
		t.Errorf("flat: %v, %t", g, ok)
	}
	if g, ok := growth(steep, rss); g < 0.3 || g > 0.4 || !ok {
		t.Errorf("steep: %v, %t", g, ok)
	}
	for name, samples := range map[string][]measure.Sample{"nothing": nil, "a few": steep[:7], "unknown": make([]measure.Sample, 100)} {
		if g, ok := growth(samples, rss); ok {
			t.Errorf("%s: %v", name, g)
		}
	}
}

func TestASendDelayIsReportedWhereItMatters(t *testing.T) {
	for _, c := range []struct {
		late, latency time.Duration
		said          int
	}{{100 * time.Microsecond, 200 * time.Microsecond, 0}, {5 * time.Millisecond, 6 * time.Millisecond, 1}, {5 * time.Millisecond, time.Second, 0}} {
		run, h, s := &measure.Run{}, measure.NewHistogram(), measure.NewHistogram()
		h.Record(c.latency)
		s.Record(c.late)
		run.Latency(Delivery, h)
		addSendDelay(run, clients.Answers{SendDelay: s})
		if len(run.Notes) != c.said {
			t.Errorf("%v late of %v: %q", c.late, c.latency, run.Notes)
		}
	}
}

// A note reports a load generator that is the bottleneck, and only then.
func TestABusyLoadGeneratorIsReported(t *testing.T) {
	st, err := NewEnv(&target.Server{}, 1, func(string, time.Duration) {})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	for _, busy := range []bool{false, true} {
		ob, err := st.observe(time.Second, func() measure.Counts { return measure.Counts{} })
		if err != nil {
			t.Fatal(err)
		}
		if busy {
			st.readers[0].Call(func() {
				for until := loop.Now() + 300*time.Millisecond; loop.Now() < until; {
				}
			})
		} else {
			time.Sleep(100 * time.Millisecond) // idle
		}
		run := &measure.Run{}
		if err := ob.end(run, perMessage, 1); err != nil {
			t.Fatal(err)
		}
		if reported := strings.Contains(strings.Join(run.Notes, " "), "The load generator was the bottleneck"); reported != busy {
			t.Errorf("busy %t: %q", busy, run.Notes)
		}
	}
}

func TestSocketsAreLimitedByOpenFiles(t *testing.T) {
	if o, note := (Options{Users: 10, Connections: 20}).Fit(); o.Users != 10 || o.Connections != 20 || note != "" {
		t.Errorf("%+v, %q", o, note)
	}
	o, note := (Options{Users: 10, Connections: 1 << 31}).Fit()
	if want := OpenFiles() - spareFiles; o.Users != 10 || o.Connections != want || !strings.Contains(note, "ulimit") {
		t.Errorf("%+v, %q", o, note)
	}
}
