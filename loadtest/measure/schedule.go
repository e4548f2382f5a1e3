// Package measure holds schedules, latency histograms, CPU and memory of processes,
// and the results of several runs.
package measure

import "time"

// Schedule is an open-loop schedule: events are due at a fixed rate, even if the
// server has not answered earlier ones, so that a stall counts in every latency. The
// zero value is a closed loop, in which an event is due when an earlier one is done.
type Schedule struct {
	PerSecond float64
}

// Open reports whether the loop is open.
func (p Schedule) Open() bool { return p.PerSecond > 0 }

// Due returns when event i (from 0) is due after the start. It is computed from i, so
// that rounding errors do not add up.
func (p Schedule) Due(i int) time.Duration {
	return time.Duration(float64(i) / p.PerSecond * float64(time.Second))
}

// Count returns the number of events due before d; 0 in a closed loop.
func (p Schedule) Count(d time.Duration) int {
	if !p.Open() {
		return 0
	}
	n := int(d.Seconds() * p.PerSecond)
	for p.Due(n) < d {
		n++
	}
	for n > 0 && p.Due(n-1) >= d {
		n--
	}
	return n
}
