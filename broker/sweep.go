package broker

import (
	"context"
	_ "embed"
	"errors"

	"github.com/redis/go-redis/v9"

	"herald/internal/redisx"
	"herald/notify"
)

//go:embed sweep.lua
var sweepSource string

var sweepScript = redis.NewScript(sweepSource)

// stateAfterLog is how long a user's state outlives the log.
const stateAfterLog = 30 * 24 * 60 * 60 * 1000 // ms

// Swept counts what Sweep changed.
type Swept struct {
	Logs     int // removed: their newest notification is older than the retention
	Expiring int // lists of expiring ids removed: their log is gone
	Bounded  int // keys that had no expiry, and have one now
}

// Sweep removes the logs of users who got no notification for longer than the retention,
// and gives keys without an expiry one. Redis expires most logs; those left were stored
// under a longer retention, or lost their expiry. Each user is checked and changed in one
// step, so a log with a new entry stays. Call it from a nightly job with a few hundred users
// at a time.
func (b *Broker) Sweep(ctx context.Context, userIDs []string) (Swept, error) {
	var keys []string
	for _, id := range userIDs {
		if notify.ValidUserID(id) {
			keys = append(keys, logKey(id), stateKey(id), expiringKey(id))
		}
	}
	if len(keys) == 0 {
		return Swept{}, nil
	}
	ctx, cancel := b.budget(ctx)
	defer cancel()
	n, err := sweepScript.Run(ctx, b.rdb, keys, b.o.LogRetention.Milliseconds(), stateAfterLog).Int64Slice()
	if err == nil && len(n) != 3 {
		err = errors.New("unexpected reply")
	}
	if err != nil {
		return Swept{}, redisx.Unavailable("sweep", err)
	}
	return Swept{Logs: int(n[0]), Expiring: int(n[1]), Bounded: int(n[2])}, nil
}
