package schedule

import (
	"sync/atomic"
	"time"
)

// clock tells Redis's time from its last answer and this node's monotonic clock.
// The zero value knows nothing; start must be set.
type clock struct {
	start  time.Time
	offset atomic.Int64 // Redis's Unix ms minus ms since start; 0: unknown
}

// learn notes Redis's time from an answer that arrived now.
func (c *clock) learn(ms int64) { c.offset.Store(ms - time.Since(c.start).Milliseconds()) }

// now is Redis's time in Unix ms: never later than the truth unless its clock
// went back, and earlier by the length of the call that taught it.
func (c *clock) now() (ms int64, known bool) {
	offset := c.offset.Load()
	return offset + time.Since(c.start).Milliseconds(), offset != 0
}
