package measure

import (
	"math"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Latencies are clamped to this range and recorded with three significant digits.
const (
	minLatency = time.Microsecond
	maxLatency = 2 * time.Minute
)

// Histogram holds latencies. It is not safe for concurrent use: merge one per thread.
type Histogram struct{ h *hdrhistogram.Histogram }

// NewHistogram returns an empty histogram.
func NewHistogram() *Histogram {
	return &Histogram{hdrhistogram.New(int64(minLatency), int64(maxLatency), 3)}
}

// Record adds a latency.
func (h *Histogram) Record(d time.Duration) {
	_ = h.h.RecordValue(int64(min(max(d, minLatency), maxLatency))) // in range: cannot fail
}

// Merge adds the latencies of another histogram.
func (h *Histogram) Merge(other *Histogram) { h.h.Merge(other.h) }

// Reset removes all latencies.
func (h *Histogram) Reset() { h.h.Reset() }

// Count returns the number of latencies.
func (h *Histogram) Count() int64 { return h.h.TotalCount() }

// Quantile returns the latency at the quantile q, 0 to 1.
func (h *Histogram) Quantile(q float64) time.Duration {
	return time.Duration(h.h.ValueAtQuantile(q * 100))
}

// Max returns the longest latency.
func (h *Histogram) Max() time.Duration { return time.Duration(h.h.Max()) }

// Point is one point of a percentile curve.
type Point struct {
	Quantile float64 `json:"quantile"` // 0 to 1
	Seconds  float64 `json:"seconds"`
}

// Curve returns points evenly spaced on a logarithmic axis: 0, 90, 99, 99.9 % …, as
// far as the number of latencies supports it.
func (h *Histogram) Curve() []Point {
	if h.Count() == 0 {
		return nil
	}
	var curve []Point
	for nines := 0.0; ; nines += 0.1 {
		q := 1 - math.Pow(10, -nines)
		if (1-q)*float64(h.Count()) < 1 {
			break
		}
		curve = append(curve, Point{q, h.Quantile(q).Seconds()})
	}
	return curve
}
