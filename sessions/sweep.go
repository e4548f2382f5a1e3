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

// sweepHandles is how many handles one script looks at: well under a
// millisecond of Redis's time.
const sweepHandles = 500

// Sweep takes out of the users' indexes what points to no session: left by keys
// that were evicted or deleted by hand, or of sessions that ended and whose user
// has not come back. It returns how many handles that were. What it looks at and
// what it removes is one step, so no session that begins meanwhile is missed by a
// revoke-all. It is for a nightly job, a few hundred users a call.
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

// unfinished are the indexes whose end has not been reached, and where to go on.
func unfinished(keys []string, ranks []any) (rest []string, from []any) {
	for i, rank := range ranks {
		if rank != int64(-1) {
			rest, from = append(rest, keys[i]), append(from, rank)
		}
	}
	return rest, from
}
