package cache

import "sync/atomic"

// Stats holds counters since New. Each Get and GetWithin with a valid key counts as
// exactly one of Hits, Stale and Misses.
type Stats struct {
	Hits   uint64 // fresh values and "not found" from Redis
	Stale  uint64 // stale values from Redis
	Misses uint64 // loads, and waits for a load; also while Redis is down

	Waits       uint64 // flights that waited for another process's load
	Loads       uint64 // calls of a loader, including refreshes
	LoadErrors  uint64 // failed loads, including panics but not "not found"
	RedisErrors uint64 // failed calls to Redis, and entries that could not be decoded
	Late        uint64 // loaded values not stored because the lease had ended
	Skipped     uint64 // refreshes skipped because Options.Refreshes were running
}

// HitRatio is the share of calls answered from Redis, 0 to 1; 1 before the first call.
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

// Stats returns the counters.
func (c *Cache[V]) Stats() Stats {
	n := &c.counters
	return Stats{
		Hits: n.hits.Load(), Stale: n.stale.Load(), Misses: n.misses.Load(),
		Waits: n.waits.Load(), Loads: n.loads.Load(), LoadErrors: n.loadErrors.Load(),
		RedisErrors: n.redisErrors.Load(), Late: n.late.Load(), Skipped: c.work.skippedRefreshes(),
	}
}
