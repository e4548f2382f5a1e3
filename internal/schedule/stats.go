package schedule

import (
	"sync/atomic"
	"time"
)

// LateBounds are the upper bounds of Stats.Late.
var LateBounds = [...]time.Duration{
	50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second, 30 * time.Second,
}

// Stats holds this node's counters, and the number of entries in Redis at its last poll.
type Stats struct {
	Pending   int64
	Added     uint64
	Cancelled uint64
	Delivered uint64
	Failed    uint64 // deliveries that failed and were postponed
	TakenBack uint64 // entries of AddPending that were removed without their commit
	// Late is a histogram of delays; its last bucket has no upper bound. LateSum is the
	// sum of the delays.
	Late    [len(LateBounds) + 1]uint64
	LateSum time.Duration
}

type counts struct {
	pending                                        atomic.Int64
	added, cancelled, delivered, failed, takenBack atomic.Uint64
	late                                           [len(LateBounds) + 1]atomic.Uint64
	lateSum                                        atomic.Int64 // ns
}

// Stats returns the counters without contacting Redis.
func (s *Scheduler) Stats() Stats {
	c := &s.counts
	st := Stats{
		Pending: c.pending.Load(), Added: c.added.Load(), Cancelled: c.cancelled.Load(),
		Delivered: c.delivered.Load(), Failed: c.failed.Load(), TakenBack: c.takenBack.Load(), LateSum: time.Duration(c.lateSum.Load()),
	}
	for i := range st.Late {
		st.Late[i] = c.late[i].Load()
	}
	return st
}

func (c *counts) observe(late time.Duration) {
	late = max(late, 0)
	i := 0
	for i < len(LateBounds) && late > LateBounds[i] {
		i++
	}
	c.late[i].Add(1)
	c.lateSum.Add(int64(late))
}
