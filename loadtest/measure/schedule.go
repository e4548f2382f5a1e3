// Package measure turns what happened into numbers: when things were due, how
// late they came, what they cost, and what several runs say together.
package measure

import "time"

// Pace is an open-loop schedule: things are due whether or not the server has
// answered the ones before, so that a server that stalls is charged for all who
// had to wait. The zero value is a closed loop: the next as soon as one is done.
type Schedule struct {
	PerSecond float64
}

// Open reports whether there is a schedule.
func (p Schedule) Open() bool { return p.PerSecond > 0 }

// Due is when the i-th (from 0) is due after the start. It is computed from i,
// so that no rounding adds up.
func (p Schedule) Due(i int) time.Duration {
	return time.Duration(float64(i) / p.PerSecond * float64(time.Second))
}

// Count is how many are due before d; 0 in a closed loop.
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
