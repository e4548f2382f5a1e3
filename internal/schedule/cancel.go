package schedule

import (
	"context"

	"herald/internal/redisx"
)

// Cancel removes an entry, so that it is not delivered. It returns ErrNotFound if the
// entry was delivered, cancelled or never scheduled. After redisx.ErrUnavailable the entry
// may have been cancelled.
func (s *Scheduler) Cancel(ctx context.Context, id string) error {
	_, userID, ok := ParseID(id)
	if !ok {
		return ErrNotFound
	}
	ctx, cancel := s.budget(ctx)
	defer cancel()
	there, err := cancelScript.Run(ctx, s.rdb, []string{userKey(userID), dueKey(shardOf(userID))}, id).Bool()
	if err != nil {
		return redisx.Unavailable("cancel", err)
	}
	if !there {
		return ErrNotFound
	}
	s.counts.cancelled.Add(1)
	return nil
}
