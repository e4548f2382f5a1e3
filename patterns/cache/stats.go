package cache

import "sync/atomic"

// Stats counts since New. Every Get and GetWithin that is not refused for its key
// is exactly one of Hits, Stale and Misses.
type Stats struct {
	Hits   uint64 // answered fresh, without a load; "not found" included
	Stale  uint64 // answered from the stale window
	Misses uint64 // had to load or to wait for a load, Redis down included

	Waits       uint64 // loads that first waited for another process's
	Loads       uint64 // calls of a loader, refreshes included
	LoadErrors  uint64 // of these, failed; panics included, "not found" not
	RedisErrors uint64 // calls to Redis that failed, and entries that could not be decoded
	Late        uint64 // fills that were refused because the lease was over
	Skipped     uint64 // refreshes put off because as many as may were running
}

// HitRatio is the share of answers that waited for no load, 0 to 1; 1 if nothing
// was asked yet.
func (s Stats) HitRatio() float64 {
	all := s.Hits + s.Stale + s.Misses
	if all == 0 {
		return 1
	}
	return float64(s.Hits+s.Stale) / float64(all)
}

type counters struct {
	hits, stale, misses, waits, loads, loadErrors, redisErrors, late atomic.Uint64
}

// Stats returns the counts so far.
func (c *Cache[V]) Stats() Stats {
	n := &c.counters
	return Stats{
		Hits: n.hits.Load(), Stale: n.stale.Load(), Misses: n.misses.Load(),
		Waits: n.waits.Load(), Loads: n.loads.Load(), LoadErrors: n.loadErrors.Load(),
		RedisErrors: n.redisErrors.Load(), Late: n.late.Load(), Skipped: c.work.skippedRefreshes(),
	}
}
