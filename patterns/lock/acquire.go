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

// acquire returns the resource held, with its token. What it could not finish it
// gives back.
func (l *Locker) acquire(ctx context.Context, resource string, ttl time.Duration, retries int) (*held, error) {
	ttl = ttl.Truncate(time.Millisecond)
	h := &held{l: l, resource: resource, ttl: ttl, budget: min(l.o.Budget, ttl/10), kept: make(chan struct{})}
	h.mutex = l.mutex(resource, ttl, h.budget, retries)
	if err := l.refusal(ctx, h.mutex.LockContext(ctx)); err != nil {
		// redsync gives back what it got, but with the context that it was given.
		if ctx.Err() != nil {
			h.unlock()
		}
		l.countRefusal(err)
		return nil, err
	}
	token, err := l.newToken(ctx, resource, h.budget)
	if err == nil && !time.Now().Before(h.mutex.Until()) {
		err = unavailable("fencing token", errors.New("it took longer than the lock is valid"))
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

// mutex is redsync's, with what its defaults get wrong for us set:
//   - a node may take 5 % of the ttl, which is 15 s of 5 min: it gets our budget;
//   - unlocking and extending have no time limit: the callers give one;
//   - the value is made inside and known only after success, so that a failed
//     acquisition could not be given back: it is made here;
//   - drift leaves out the milliseconds that Redis rounds to: they are added.
//
// WithFailFast stays off: it returns with the first quorum of answers and cancels
// the rest, so the lock is on three nodes where it could be on five, and the
// next one to restart loses it (redsync issue 186). So does WithSetNXOnExtend,
// which brings back a lock that others have held and released in between.
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

// refusal puts redsync's error into our words.
func (l *Locker) refusal(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("gave up: %w", context.Cause(ctx))
	case unreachable(err) > len(l.nodes)-l.quorum:
		return unavailable("acquire", err)
	case errors.Is(err, redsync.ErrFailed):
		return unavailable("acquire", errors.New("the nodes took longer than the lock is valid"))
	}
	return fmt.Errorf("%w: %w", ErrTaken, err)
}

// unreachable counts the nodes that gave no answer.
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
