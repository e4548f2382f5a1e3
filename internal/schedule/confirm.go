package schedule

import (
	"context"
	"time"
)

// pendingFor is how long entries of AddPending wait for their commit key. It is far
// longer than a publish may take, and a repeated AddPending begins it again.
const pendingFor = 10 * time.Second

// AddPending is Add for entries that must be delivered only if another write to Redis
// happens. That write creates the key commit in the same step. Until Confirm the entries
// are pending: they are listed and can be cancelled, but are not delivered. If Confirm is
// never called, the worker of any node resolves them after ten seconds: an entry whose
// commit key exists is delivered when it is due, any other is removed. The commit key must
// outlive the time for which no node runs.
func (s *Scheduler) AddPending(ctx context.Context, items []Item, f Fence, commit string) ([]Placed, error) {
	return s.add(ctx, items, f, commit)
}

// Confirm resolves pending entries at once: it makes them ordinary entries if the commit
// key exists, and removes them if it does not. If Redis is down, it logs that, and the
// worker resolves them in the same way.
func (s *Scheduler) Confirm(ctx context.Context, list []Placed, commit string) {
	keys, ids := []string{commit}, make([]any, len(list))
	for i, p := range list {
		_, user, _ := ParseID(p.ID)
		keys = append(keys, userKey(user), dueKey(shardOf(user)))
		ids[i] = p.ID
	}
	ctx, cancel := s.budget(ctx)
	defer cancel()
	removed, err := confirmScript.Run(ctx, s.rdb, keys, ids...).Int()
	if err != nil {
		if s.unconfirmed.Allow() {
			s.o.Log.Warn("pending notifications were not confirmed; they are resolved later", "error", err, "within", pendingFor)
		}
		return
	}
	s.takenBack(removed)
	s.wakeFor(list)
}

// takenBack counts and logs pending entries that were removed, because the other half of
// their request was not published.
func (s *Scheduler) takenBack(n int) {
	if n == 0 {
		return
	}
	s.counts.takenBack.Add(uint64(n))
	if s.removed.Allow() {
		s.o.Log.Warn("removed scheduled notifications of a request that failed", "entries", n)
	}
}
