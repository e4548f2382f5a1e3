package lock

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// Token is a fencing token: higher than every token given before it for the same
// resource. It is about the time of the acquisition in µs since 1970, and fits in 53 bits.
//
// How it is made, after the lock was acquired: a quorum of nodes is asked for the
// highest token that each has promised, and for its clock. The new one is
//
//	max(median of the clocks, highest promised + 1, highest this process knows + 1)
//
// and is then promised by a quorum, each node of which refuses if it has promised
// as much before. It is used only if the lock is still valid afterwards.
//
// Why it increases:
//   - A token was promised by a quorum; who acquires later asks a quorum; the two
//     share a node, which names it. No clock takes part in this, so clocks may
//     step as they like.
//   - Two who race (each believing that it holds the lock) cannot get the same
//     one: the node that their quorums share promises it once.
//   - Nodes that lost their data (restarted without persistence) no longer name
//     it. Each promise goes to all nodes that can be reached, so after the loss of
//     any minority of them every quorum still has one that knows; the next
//     acquisition tells the others again.
//   - If all who knew have lost their data, the clocks remain: a token is a reading
//     of them in the past (or, between two acquisitions in the same µs, one
//     more), so the median now is higher, unless clocks have stepped back too. One
//     wrong clock out of three decides nothing.
//   - If the clocks have stepped back as well, this process still knows its own.
//
// What is left is another process's token, forgotten by every Redis, from a time
// that the clocks have not reached again. Then a guard (Script) refuses the new
// holder until they have: nothing is overwritten, but nothing is written either.
type Token int64

//go:embed look.lua
var lookSource string

//go:embed promise.lua
var promiseSource string

var (
	lookScript    = redis.NewScript(lookSource)
	promiseScript = redis.NewScript(promiseSource)
)

// tokenTries is how often a token is made again when another got it first, which
// takes two that both believe to hold the lock.
const tokenTries = 3

var errPromised = errors.New("others got the same fencing token")

func (l *Locker) newToken(ctx context.Context, resource string, budget time.Duration) (Token, error) {
	for range tokenTries {
		t, err := l.nextToken(ctx, resource, budget)
		if err != nil {
			return 0, fmt.Errorf("fencing token: %w", err)
		}
		promised, err := ask(ctx, l, budget, func(ctx context.Context, n redis.UniversalClient) (bool, error) {
			v, err := promiseScript.Run(ctx, n, []string{tokenKey(resource)}, int64(t), tokenLife.Milliseconds()).Int()
			return v == 1, err
		})
		if err != nil {
			return 0, fmt.Errorf("fencing token: %w", err)
		}
		if count(promised) >= l.quorum {
			return t, nil
		}
	}
	return 0, fmt.Errorf("fencing token: %w: %w", ErrTaken, errPromised)
}

func (l *Locker) nextToken(ctx context.Context, resource string, budget time.Duration) (Token, error) {
	seen, err := ask(ctx, l, budget, func(ctx context.Context, n redis.UniversalClient) ([2]int64, error) {
		v, err := lookScript.Run(ctx, n, []string{tokenKey(resource)}).Int64Slice()
		if err == nil && len(v) != 2 {
			err = fmt.Errorf("unexpected reply %v", v)
		}
		if err != nil {
			return [2]int64{}, err
		}
		return [2]int64(v), nil
	})
	if err != nil {
		return 0, err
	}
	var above int64
	clocks := make([]int64, len(seen))
	for i, s := range seen {
		above, clocks[i] = max(above, s[0]), s[1]
	}
	return Token(l.raise(max(above+1, median(clocks)))), nil
}

// raise returns n, or more if this process knows a token as high, and remembers it.
func (l *Locker) raise(n int64) int64 {
	for {
		highest := l.highest.Load()
		t := max(n, highest+1)
		if l.highest.CompareAndSwap(highest, t) {
			return t
		}
	}
}
