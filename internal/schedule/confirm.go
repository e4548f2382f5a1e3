package schedule

import (
	"context"
	"time"

	"herald/internal/redisx"
)

// pendingFor is how long entries of AddPending wait for their commit key. It is far
// longer than a publish may take, and a repeated AddPending begins it again.
const pendingFor = 10 * time.Second

// AddPending is Add for entries that must be delivered only if another write to Redis
// happens. That write creates the key commit in the same step. Until Confirm the entries
// are pending: they are listed and can be cancelled, but are not delivered. If Confirm is
// never called, the worker of any node settles them after ten seconds: an entry whose
// commit key exists is delivered when it is due, any other is removed. The commit key must
// outlive the time for which no node runs.
func (s *Scheduler) AddPending(ctx context.Context, items []Item, f Fence, commit string) ([]Placed, error) {
	return s.add(ctx, items, f, commit)
}

// Confirm settles pending entries at once: it makes them ordinary entries if the commit
// key exists, and removes them if it does not. After redisx.ErrUnavailable the worker
// settles them in the same way.
func (s *Scheduler) Confirm(ctx context.Context, list []Placed, commit string) error {
	keys, ids := []string{commit}, make([]any, len(list))
	for i, p := range list {
		_, user, ok := ParseID(p.ID)
		if !ok {
			return ErrNotFound
		}
		keys = append(keys, userKey(user), dueKey(shardOf(user)))
		ids[i] = p.ID
	}
	ctx, cancel := s.budget(ctx)
	defer cancel()
	if err := confirmScript.Run(ctx, s.rdb, keys, ids...).Err(); err != nil {
		return redisx.Unavailable("confirm", err)
	}
	s.wakeFor(list)
	return nil
}
