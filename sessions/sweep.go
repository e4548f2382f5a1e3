package sessions

import (
	"context"
	_ "embed"
	"fmt"

	"herald/notify"
)

//go:embed sweep.lua
var sweepLua string

var sweepScript = newScript(sweepLua)

// sweepHandles limits the handles that one script checks, which takes Redis well under a
// millisecond.
const sweepHandles = 500

// Sweep removes handles without a session from the users' indexes, and returns how many.
// Such handles remain after keys were evicted or deleted by hand, or after the sessions of
// an absent user have expired. Checking and removing is one step, so a session created
// meanwhile stays visible to RevokeAll. Call it from a nightly job with a few hundred
// users.
func (s *Store) Sweep(ctx context.Context, userIDs []string) (removed int, err error) {
	var keys []string
	var ranks []any
	for _, id := range userIDs {
		if notify.ValidUserID(id) {
			keys, ranks = append(keys, indexKey(id)), append(ranks, 0)
		}
	}
	for len(keys) > 0 {
		v, err := s.run(ctx, sweepScript, keys, append(ranks, sweepHandles)...)
		if err != nil {
			return removed, fmt.Errorf("sweep sessions: %w", err)
		}
		answer, ok := v.([]any)
		if !ok || len(answer) != len(keys)+1 {
			return removed, fmt.Errorf("sweep sessions: %w", unexpected(v))
		}
		n, _ := answer[0].(int64)
		removed += int(n)
		keys, ranks = unfinished(keys, answer[1:])
	}
	return removed, nil
}

// unfinished returns the indexes that are not finished, and the ranks at which to continue.
func unfinished(keys []string, ranks []any) (rest []string, from []any) {
	for i, rank := range ranks {
		if rank != int64(-1) {
			rest, from = append(rest, keys[i]), append(from, rank)
		}
	}
	return rest, from
}
