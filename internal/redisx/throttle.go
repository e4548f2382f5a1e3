package redisx

import (
	"sync/atomic"
	"time"
)

// Throttle keeps a log readable during an outage: it admits one event a second. The
// zero value admits the first.
type Throttle struct{ last atomic.Int64 } // Unix ns of the last admitted event

// Allow reports whether the caller may log now. It is safe for concurrent use.
func (t *Throttle) Allow() bool {
	now, last := time.Now().UnixNano(), t.last.Load()
	return now-last >= int64(time.Second) && t.last.CompareAndSwap(last, now)
}
