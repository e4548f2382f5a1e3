package lock

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"time"

	"github.com/go-redsync/redsync/v4"
)

// acquire acquires the resource and a token for it. It releases a lock for which it
// could not get a token.
func (l *Locker) acquire(ctx context.Context, resource string, ttl time.Duration, retries int) (*lease, error) {
	ttl = ttl.Truncate(time.Millisecond)
	h := &lease{l: l, resource: resource, ttl: ttl, budget: min(l.o.Budget, ttl/10), stopped: make(chan struct{})}
	h.mutex = l.mutex(resource, ttl, h.budget, retries)
	if err := l.refusal(ctx, h.mutex.LockContext(ctx)); err != nil {
		// redsync unlocks with the same context, which fails if that has ended.
		if ctx.Err() != nil {
			h.unlock()
		}
		l.countRefusal(err)
		return nil, err
	}
	token, err := l.newToken(ctx, resource, h.budget)
	if err == nil && !time.Now().Before(h.mutex.Until()) {
		err = unavailable("fencing token", errors.New("it took longer than the lock's validity"))
	}
	if err != nil {
		h.unlock()
		l.countRefusal(err)
		return nil, err
	}
	l.acquired.Add(1)
	h.token = token
	h.ctx, h.cancel = context.WithCancelCause(ctx)
	return h, nil
}

// mutex returns a redsync mutex with these defaults replaced:
//   - A node may take 5 % of the ttl, which is 15 s of 5 min; it gets our budget.
//   - Unlock and extend have no time limit; their callers set one.
//   - redsync generates the value and keeps it secret until it succeeds, so a failed
//     acquisition could not be unlocked; the value is generated here.
//   - The drift leaves out that Redis rounds to milliseconds; that is added.
//
// WithFailFast stays off: it returns at the first quorum of answers and cancels the
// rest. The lock is then on three nodes instead of five, and the next node that
// restarts loses it (redsync issue 186). WithSetNXOnExtend stays off: it would
// revive a lock that another process has held and released in between.
func (l *Locker) mutex(resource string, ttl, budget time.Duration, retries int) *redsync.Mutex {
	value := rand.Text()
	return l.redsync.NewMutex(lockKey(resource),
		redsync.WithExpiry(ttl),
		redsync.WithTries(1+retries),
		redsync.WithRetryDelayFunc(func(int) time.Duration {
			return l.o.RetryDelay + mathrand.N(l.o.Jitter+1)
		}),
		redsync.WithDriftFactor(driftFactor+float64(roundingDrift)/float64(ttl)),
		redsync.WithTimeoutFactor(float64(budget)/float64(ttl)),
		redsync.WithValue(value),
		redsync.WithGenValueFunc(func() (string, error) { return value, nil }),
	)
}

// refusal translates redsync's error into this package's.
func (l *Locker) refusal(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("gave up: %w", context.Cause(ctx))
	case unreachable(err) > len(l.nodes)-l.quorum:
		return unavailable("acquire", err)
	case errors.Is(err, redsync.ErrFailed):
		return unavailable("acquire", errors.New("the nodes took longer than the lock's validity"))
	}
	return fmt.Errorf("%w: %w", ErrTaken, err)
}

// unreachable counts the nodes that did not answer.
func unreachable(err error) (n int) {
	switch e := err.(type) {
	case *redsync.RedisError:
		return 1
	case interface{ Unwrap() []error }:
		for _, part := range e.Unwrap() {
			n += unreachable(part)
		}
	}
	return n
}

func (l *Locker) countRefusal(err error) {
	switch {
	case errors.Is(err, ErrTaken):
		l.taken.Add(1)
	case errors.Is(err, ErrUnavailable):
		l.unavailable.Add(1)
	}
}
