package lock

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// WithLock calls fn while it holds the resource (1 to 200 of [A-Za-z0-9._@:-]),
// and releases it when fn has returned or panicked. If others hold it, it tries
// again as Options say, and then returns ErrTaken; without a quorum
// ErrUnavailable. fn has not been called in either case. At the defaults that
// takes at most 11 tries of 2 × 200 ms and 10 pauses of up to 300 ms, 7.4 s, while a
// majority of nodes hangs; 3 s while they refuse connections; less if ctx ends.
//
// The ttl (at least 100 ms) is how long the resource stays locked after this
// process has died; while fn runs the lock is extended as often as it takes.
//
// fn's context ends with cause ErrLost the moment the lock can no longer be
// proven: its validity, by this process's monotonic clock and less the drift,
// is over without an extension by a quorum, or a majority says that it is
// somebody else's. fn must stop then; and as it cannot always know in time (see
// the package), what it writes must carry the token. If the lock was lost,
// WithLock returns ErrLost beside fn's own error, also when fn returned nil.
//
// Only who holds the lock releases it. A failed release is logged and counted,
// and the ttl ends the lock.
func (l *Locker) WithLock(ctx context.Context, resource string, ttl time.Duration, fn func(context.Context, Token) error) error {
	if err := checkName("resource", resource, ":"); err != nil {
		return err
	}
	if ttl < minTTL {
		return fmt.Errorf("lock: ttl %v of %q: must be at least %v", ttl, resource, minTTL)
	}
	return l.withLock(ctx, resource, ttl, l.o.Retries, func(h *held) error { return fn(h.ctx, h.token) })
}

func (l *Locker) withLock(ctx context.Context, resource string, ttl time.Duration, retries int, work func(*held) error) error {
	h, err := l.acquire(ctx, resource, ttl, retries)
	if err != nil {
		return fmt.Errorf("lock %q: %w", resource, err)
	}
	defer h.release()
	h.keep()
	err = work(h)
	if h.end() {
		l.lost.Add(1)
		err = errors.Join(fmt.Errorf("lock %q: %w", resource, ErrLost), err)
	}
	return err
}
