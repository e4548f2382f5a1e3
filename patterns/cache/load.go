package cache

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"
)

// PanicError is the error of a Loader that panicked or called runtime.Goexit.
type PanicError struct {
	Value any // argument of panic; nil for Goexit
}

func (e *PanicError) Error() string {
	if e.Value == nil {
		return "loader called runtime.Goexit"
	}
	return fmt.Sprintf("loader panicked: %v", e.Value)
}

// loadAlone loads without a lease, and so without storing the result.
func (c *Cache[V]) loadAlone(ctx context.Context, load Loader[V]) answer[V] {
	v, err := c.call(ctx, load)
	return answer[V]{v, err, true}
}

// fill loads under a lease, stores the result and ends the lease. After a failure no
// process loads the key again during backoff.
func (c *Cache[V]) fill(ctx context.Context, l lease, load Loader[V], backoff time.Duration) answer[V] {
	v, err := c.call(ctx, load)
	switch {
	case err == nil:
		content, failed := c.encode(v)
		if failed != nil {
			c.warn("encode a value", failed)
			c.release(ctx, l, backoff)
			break
		}
		c.store(ctx, l, content, c.o.TTL, c.o.Stale)
	case errors.Is(err, ErrNotFound) && c.o.NotFoundTTL > 0:
		c.store(ctx, l, []byte{kindNotFound}, c.o.NotFoundTTL, min(c.o.Stale, c.o.NotFoundTTL))
	default:
		c.release(ctx, l, backoff)
	}
	return answer[V]{v, err, true}
}

// call runs a loader on a separate goroutine, so that its panic or runtime.Goexit ends
// only that goroutine. With singleflight, a panic would crash the process, and a Goexit
// would block all waiters.
func (c *Cache[V]) call(ctx context.Context, load Loader[V]) (v V, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.o.LoadTimeout)
	defer cancel()
	c.counters.loads.Add(1)
	done := make(chan struct{})
	err = &PanicError{}
	go func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				err = &PanicError{p}
				c.o.Log.Error("cache: a loader panicked", "namespace", c.namespace, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			}
		}()
		v, err = load(ctx)
	}()
	<-done
	if err != nil && !errors.Is(err, ErrNotFound) {
		c.counters.loadErrors.Add(1)
	}
	return v, err
}
