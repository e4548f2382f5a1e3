package cache

import (
	"context"
	"errors"
	"time"
)

// flight is a load, or a wait for another process's load, shared by the callers in
// this process that want the same key.
type flight[V any] struct {
	load Loader[V]
	want wanted
}

// answer is the result of a flight.
type answer[V any] struct {
	v      V
	err    error
	loaded bool // by this process, or by another while this one waited
}

// The pause between polls for another process's load, in case its message is lost. It
// doubles each time.
const (
	firstPause = 10 * time.Millisecond
	maxPause   = 640 * time.Millisecond
)

// join waits for the flight of key and starts one if there is none.
func (c *Cache[V]) join(ctx context.Context, key string, f flight[V]) (v V, err error) {
	a := answer[V]{loaded: true}
	select {
	case r := <-c.flights.DoChan(string(f.want)+" "+key, func() (any, error) { return c.fly(ctx, key, f), nil }):
		a = r.Val.(answer[V])
	case <-ctx.Done():
		a.err = ctx.Err()
	}
	if a.loaded {
		c.counters.misses.Add(1)
	} else {
		c.counters.hits.Add(1)
	}
	return a.v, a.err
}

// fly runs a flight. It keeps the values of the first caller's ctx but not its
// cancellation, because others wait for the same load.
func (c *Cache[V]) fly(ctx context.Context, key string, f flight[V]) answer[V] {
	if !c.work.begin() {
		return answer[V]{err: ErrClosed, loaded: true}
	}
	defer c.work.group.Done()
	ctx, cancel := c.untilClosed(ctx)
	defer cancel()
	return c.loadLeased(ctx, key, f)
}

func (c *Cache[V]) untilClosed(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(c.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// loadLeased loads under the lease, or waits for the process that has it. A waiter asks
// for the lease again whenever it wakes up; after Options.Wait it loads without.
func (c *Cache[V]) loadLeased(ctx context.Context, key string, f flight[V]) answer[V] {
	token, patience, waited := newToken(), time.Now().Add(c.o.Wait), false
	for pause := c.poll; ; pause = min(2*pause, max(c.poll, maxPause)) {
		woken, leave := c.waiters.wait(key) // before acquire, or a message in between would be missed
		found, err := c.acquire(ctx, key, token, f.want)
		left := time.Until(patience)
		switch {
		case ctx.Err() != nil:
			leave()
			return answer[V]{err: ErrClosed, loaded: true}
		case err != nil, found.state == loading && left <= 0:
			leave()
			return c.loadAlone(ctx, f.load)
		case found.state == leased:
			leave()
			return c.fill(ctx, lease{key, token, found.began}, f.load, 0)
		case found.state == loading:
			if !waited {
				c.counters.waits.Add(1)
			}
			waited = true
			sleep(ctx, woken, min(pause, left, found.left+time.Millisecond))
			leave()
			if f.want == noEntry {
				f.want = anyEntry // the unusable entry is being replaced
			}
		default:
			leave()
			v, err := c.decode(found.content)
			if err == nil || errors.Is(err, ErrNotFound) {
				return answer[V]{v, err, waited}
			}
			c.failed("decode an entry", err)
			f.want = noEntry
		}
	}
}

func sleep(ctx context.Context, woken <-chan struct{}, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-woken:
	case <-t.C:
	case <-ctx.Done():
	}
}

// refresh starts to load a stale key in the background, unless a refresh is running
// here or elsewhere, or has just failed.
func (c *Cache[V]) refresh(ctx context.Context, key string, load Loader[V]) {
	if !c.work.beginRefresh(key) {
		return
	}
	go func() {
		ctx, cancel := c.untilClosed(ctx)
		defer cancel()
		c.work.endRefresh(key, c.refreshOnce(ctx, key, load))
	}()
}

// refreshOnce returns how long this process should wait before it tries again.
func (c *Cache[V]) refreshOnce(ctx context.Context, key string, load Loader[V]) time.Duration {
	token := newToken()
	found, err := c.acquire(ctx, key, token, freshEntry)
	switch {
	case err != nil:
		return c.o.Backoff
	case found.state == loading:
		return min(found.left, c.o.Backoff)
	case found.state != leased:
		return 0
	}
	a := c.fill(ctx, lease{key, token, found.began}, load, c.o.Backoff)
	if a.err != nil && !errors.Is(a.err, ErrNotFound) {
		c.warn("refresh", a.err)
		return c.o.Backoff
	}
	return 0
}
