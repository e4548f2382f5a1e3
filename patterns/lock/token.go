package lock

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// Token is a fencing token: higher than every token issued before it for the same
// resource. It is about the time of the acquisition in Unix µs and fits in 53 bits.
//
// How it is issued, after the lock was acquired: the process asks a quorum of nodes
// for the highest token that each has promised, and for its clock. The new token is
//
//	max(median of the clocks, highest promised + 1, highest issued by this process + 1)
//
// A quorum must then promise it. A node refuses if it has promised this token or a
// higher one before. The token is used only if the lock is still valid afterwards.
//
// Why it increases:
//   - A quorum has promised each token, and a later acquisition asks a quorum. The
//     two share a node, which reports the earlier token. No clock takes part in
//     this, so clocks may step.
//   - Two racing processes, each believing that it holds the lock, can't get the
//     same token: the node that their quorums share promises it only once.
//   - A node that lost its data (restarted without persistence) no longer reports
//     it. But each promise goes to all reachable nodes. So after the loss of any
//     minority of them, every quorum still contains a node that remembers, and the
//     next acquisition renews the promise on the others.
//   - If all nodes that remembered have lost their data, the clocks remain. A token
//     is an earlier reading of them (one more, if two acquisitions fell into the
//     same µs). So the median is higher now, unless clocks have stepped back too.
//     One wrong clock of three does not change the median.
//   - If the clocks have stepped back as well, this process remembers its own tokens.
//
// One case remains: a token of another process, forgotten by every Redis server, from
// a time that the clocks have not reached again. Then a guard (Script) refuses the new
// holder until they have. Nothing is overwritten, but nothing is written either.
type Token int64

//go:embed look.lua
var lookSource string

//go:embed promise.lua
var promiseSource string

var (
	lookScript    = redis.NewScript(lookSource)
	promiseScript = redis.NewScript(promiseSource)
)

// tokenTries limits the tries to get a token. A try fails when another process gets
// the same token first, which needs two that both believe to hold the lock.
const tokenTries = 3

var errPromised = errors.New("another process got the same fencing token")

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
	var highest int64
	clocks := make([]int64, len(seen))
	for i, s := range seen {
		highest, clocks[i] = max(highest, s[0]), s[1]
	}
	return Token(l.raise(max(highest+1, median(clocks)))), nil
}

// raise returns n, or one more than the highest token of this process if that is
// higher, and remembers the result.
func (l *Locker) raise(n int64) int64 {
	for {
		highest := l.highest.Load()
		t := max(n, highest+1)
		if l.highest.CompareAndSwap(highest, t) {
			return t
		}
	}
}
