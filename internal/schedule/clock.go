package schedule

import (
	"sync/atomic"
	"time"
)

// clock estimates Redis's time from its last reply and this node's monotonic clock.
// start must be set.
type clock struct {
	start  time.Time
	offset atomic.Int64 // Redis's Unix ms minus ms since start; 0: unknown
}

// learn stores Redis's time from a reply that has just arrived.
func (c *clock) learn(ms int64) { c.offset.Store(ms - time.Since(c.start).Milliseconds()) }

// now returns Redis's time, Unix ms. It is early by the reply's latency, and never late
// unless Redis's clock stepped back. known is false before the first learn.
func (c *clock) now() (ms int64, known bool) {
	offset := c.offset.Load()
	return offset + time.Since(c.start).Milliseconds(), offset != 0
}
