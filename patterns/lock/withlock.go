package lock

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// WithLock calls fn while it holds the resource (1 to 200 of [A-Za-z0-9._@:-]),
// and releases it when fn has returned or panicked.
//
// If another process holds the resource, WithLock retries as Options say and then
// returns ErrTaken. Without a quorum it returns ErrUnavailable. In both cases fn is
// not called. With the defaults a hanging majority costs at most 7.4 s (11 tries of
// 2 × 200 ms and 10 pauses of up to 300 ms), and a refusing one 3 s; less if ctx ends.
//
// The ttl (at least 100 ms) is how long the resource stays locked after this
// process has died. While fn runs, the lock is extended as often as necessary.
//
// fn's context ends with cause ErrLost as soon as the lock can no longer be proven:
// its validity, by this process's monotonic clock less the drift, has passed without
// an extension by a quorum, or a majority holds another value. fn must then stop.
// It can't always notice in time (see the package), so its writes must carry the
// token. If the lock was lost, WithLock returns ErrLost joined with fn's error, also
// when fn returned nil.
//
// Only the holder releases a lock. A failed release is logged and counted, and the
// ttl ends the lock.
func (l *Locker) WithLock(ctx context.Context, resource string, ttl time.Duration, fn func(context.Context, Token) error) error {
	if err := checkName("resource", resource, ":"); err != nil {
		return err
	}
	if ttl < minTTL {
		return fmt.Errorf("lock: ttl %v of %q: must be at least %v", ttl, resource, minTTL)
	}
	return l.withLease(ctx, resource, ttl, l.o.Retries, func(h *lease) error { return fn(h.ctx, h.token) })
}

func (l *Locker) withLease(ctx context.Context, resource string, ttl time.Duration, retries int, fn func(*lease) error) error {
	h, err := l.acquire(ctx, resource, ttl, retries)
	if err != nil {
		return fmt.Errorf("lock %q: %w", resource, err)
	}
	defer h.release()
	h.startExtending()
	err = fn(h)
	if h.stopExtending() {
		l.lost.Add(1)
		err = errors.Join(fmt.Errorf("lock %q: %w", resource, ErrLost), err)
	}
	return err
}
