package lock

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"

	"github.com/redis/go-redis/v9"
)

// ErrFenced means that a write was refused because a later holder of the lock
// has written already. Nothing was changed; the work is somebody else's now.
var ErrFenced = errors.New("lock: a later holder has written")

//go:embed fenced.lua
var fencedSource string

// Script is a Redis script that runs only for a holder whom no later one has
// overtaken: the guard of what a lock protects in Redis.
type Script struct{ script *redis.Script }

// NewScript makes a Script of Lua source, which is written as any other and need
// not know of tokens.
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

// Run runs the script on the Redis that has the protected keys. guard is a string key
// beside them that belongs to all writers of one locked resource; it holds the highest
// token seen, has no expiry, and is to be deleted only together with what it
// guards. ErrFenced if it has seen a higher token than t. Any other error may mean that
// the script has run and its answer was lost; with the same token it may be run again.
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
