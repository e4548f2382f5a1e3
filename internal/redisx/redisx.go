// Package redisx is how the gateway talks to Redis: options of a client that never
// writes twice, names of keys, the error for a Redis that is away, and group commit,
// which lets concurrent callers share a round trip.
package redisx

import (
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// ErrUnavailable means that Redis did not do what it was asked within the budget: it
// did not answer, refused, or its answer was lost on the way. Callers answer 503.
var ErrUnavailable = errors.New("request to Redis failed")

// Unavailable wraps err, the cause, in ErrUnavailable and names the operation.
func Unavailable(operation string, err error) error {
	return fmt.Errorf("%s: %w: %w", operation, ErrUnavailable, err)
}

// Configure replaces the defaults of go-redis that lose or repeat writes, and returns
// o. Nothing is retried, because a retry after a lost answer writes twice. Deadlines of
// contexts count. Dialling, reading, writing and waiting for a connection of the pool
// take at most budget each; a budget of 0 leaves these four as they are.
func Configure(o *redis.Options, budget time.Duration) *redis.Options {
	o.Protocol = 2 // RESP3 push messages are looked for before every command, and not used here
	o.MaxRetries = -1
	o.DialerRetries = 1
	o.ContextTimeoutEnabled = true
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	if budget > 0 {
		o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = budget, budget, budget, budget
	}
	return o
}
