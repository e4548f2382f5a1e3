//go:build linux

package scenario

import (
	"sync"
	"time"

	"herald/loadtest/measure"
)

// latencies is a histogram for concurrent use, for rare events.
type latencies struct {
	mu sync.Mutex
	h  *measure.Histogram // guarded by mu
}

func (l *latencies) add(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.h.Record(d)
}

// take returns the recorded latencies and starts an empty histogram.
func (l *latencies) take() *measure.Histogram {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.h
	l.h = measure.NewHistogram()
	return h
}

func (l *latencies) merge(h *measure.Histogram) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.h.Merge(h)
}
