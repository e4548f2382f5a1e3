package presence

import (
	"context"
	_ "embed"

	"github.com/redis/go-redis/v9"

	"herald/internal/redisx"
	"herald/notify"
)

//go:embed sweep.lua
var sweepSource string

var sweepScript = redis.NewScript(sweepSource)

// Sweep removes the users' expired leases that no Get has removed yet, and returns how
// many. A user has at most one lease per node. It is for a nightly job, with a few
// hundred users per call, and fails with redisx.ErrUnavailable.
func (t *Tracker) Sweep(ctx context.Context, userIDs []string) (int, error) {
	var keys []string
	for _, id := range userIDs {
		if notify.ValidUserID(id) {
			keys = append(keys, presenceKey(id))
		}
	}
	if len(keys) == 0 {
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(ctx, t.o.Budget)
	defer cancel()
	n, err := sweepScript.Run(ctx, t.rdb, keys).Int()
	if err != nil {
		return 0, redisx.Unavailable("sweep presence", err)
	}
	return n, nil
}
