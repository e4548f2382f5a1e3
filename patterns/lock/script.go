package lock

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"

	"github.com/redis/go-redis/v9"
)

// ErrFenced means that a write was refused because a later holder of the lock has
// already written. Nothing was changed. The caller should give up its work.
var ErrFenced = errors.New("lock: a later holder has written")

//go:embed fenced.lua
var fencedSource string

// Script is a Redis script that carries a fencing token: it runs only if no later
// holder of the lock has run one before. It protects data in Redis.
type Script struct{ script *redis.Script }

// NewScript returns a Script with the given Lua source. The source sees only its own
// KEYS and ARGV and does not handle tokens.
//
//	var stock = lock.NewScript(`return redis.call('SET', KEYS[1], ARGV[1])`)
//
//	err := locks.WithLock(ctx, "stock:7", 30*time.Second, func(ctx context.Context, t lock.Token) error {
//		n := compute(ctx)
//		_, err := stock.Run(ctx, rdb, "stock:7:guard", t, []string{"stock:7"}, n)
//		return err
//	})
func NewScript(source string) *Script {
	return &Script{redis.NewScript(fencedSource + source)}
}

// Run runs the script on the Redis server that has the protected keys.
//
// guard is a string key beside them, shared by all writers of one locked resource. It
// holds the highest token seen and has no expiry. Delete it only together with the
// data it guards.
//
// Run returns ErrFenced if the guard has seen a higher token than t. After any other
// error the script may have run and its reply been lost; it may be run again with the
// same token.
func (s *Script) Run(ctx context.Context, rdb redis.Scripter, guard string, t Token, keys []string, args ...any) (any, error) {
	v, err := s.script.Run(ctx, rdb, slices.Concat([]string{guard}, keys), slices.Concat([]any{int64(t)}, args)...).Result()
	switch {
	case errors.Is(err, redis.Nil):
		return nil, nil
	case redis.HasErrorPrefix(err, "FENCED"):
		return nil, fmt.Errorf("guard %q: %w", guard, ErrFenced)
	case err != nil:
		return nil, fmt.Errorf("guard %q: %w", guard, err)
	}
	return v, nil
}
