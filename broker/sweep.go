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

// Swept is what Sweep found.
type Swept struct {
	Logs     int // removed: their newest notification is older than the retention
	Expiring int // lists of expiring ids removed: their log is gone
	Bounded  int // keys that had no expiry, and have one now
}

// Sweep removes the logs of users who got nothing for longer than the retention. Redis
// expires most of them by itself; what is left are those stored under a longer
// retention than now, and keys that lost their expiry. It looks and removes in one
// step: a log that is appended to meanwhile stays. It is for a nightly job, a few
// hundred users a call.
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
