// Package cache keeps in Redis what is expensive to load elsewhere (cache-aside),
// for any number of processes, in a way that survives expiry under load: an entry
// that has just expired is served for a while longer and refreshed in the
// background, once in the cluster; one that is missing is loaded once in the
// cluster, and everybody else waits for that load.
//
// Three things make one load of many: golang.org/x/sync/singleflight in the
// process; a lease in Redis across processes (the memcached lease of "Scaling
// Memcache at Facebook", NSDI 2013, 3.2.1), which is also what a fill is stored
// under, so that one that comes too late is refused; and the stale window
// (stale-while-revalidate, RFC 5861).
//
// When Redis fails, everything is loaded directly, still once in the process. The
// keys of a namespace are in keys.go. One Redis primary, not Redis Cluster.
package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/singleflight"
)

var (
	// ErrNotFound is what a Loader returns, possibly wrapped, if there is no such
	// thing. That is an answer, and cached for Options.NotFoundTTL.
	ErrNotFound = errors.New("not found")

	// ErrClosed: the cache was closed before a load that was necessary began.
	ErrClosed = errors.New("cache is closed")
)

// Options of a Cache. The zero value works.
type Options[V any] struct {
	// TTL is for how long a value is fresh, from the moment its load began.
	// Default 300 s.
	TTL time.Duration
	// Stale is for how long after that it is still served, while it is refreshed in
	// the background. Default 60 s; below 0: not at all.
	Stale time.Duration
	// NotFoundTTL is the TTL of "not found", whose stale window is as long, or Stale
	// if that is shorter. Default 30 s; below 0: "not found" is not cached.
	NotFoundTTL time.Duration
	// Jitter is the greatest share of a TTL by which it is shortened at random.
	// Default 0.1; below 0: none.
	Jitter float64

	// Lease is for how long one process may load a key alone, at least 1 ms. A load
	// that takes longer still answers those who wait in its process, but is not
	// stored. Default 5 s.
	Lease time.Duration
	// Wait is the longest that a process waits for the load of another before it
	// loads by itself. Default 3 s.
	Wait time.Duration
	// LoadTimeout is when the context of a load ends. Default 10 s.
	LoadTimeout time.Duration
	// Refreshes is how many background refreshes run at once in this process; a
	// further one is put off to the next request. Default 16.
	Refreshes int
	// Backoff is how long after a failed refresh the next is tried. Default 1 s.
	Backoff time.Duration

	// Budget is the longest that one call to Redis may take. Default 100 ms.
	Budget time.Duration
	// Codec turns values into bytes. Default JSON.
	Codec Codec[V]
	// Log gets a warning when Redis or a refresh fails, at most one a second, and
	// the stack of a loader that panicked. Default: discarded.
	Log *slog.Logger
}

// Loader gets a value from where it really is. It must return soon after ctx
// ends. An error is given to all who wait and is never cached; a panic is
// contained, and is an error (*PanicError) to them.
type Loader[V any] func(ctx context.Context) (V, error)

// Cache is one namespace of values of one type. It is safe for concurrent use.
// Values it returns may be shared with other callers: do not change them.
type Cache[V any] struct {
	// Static after construction.
	rdb       redis.UniversalClient
	namespace string
	o         Options[V]
	ctx       context.Context // ends with Close: loads and refreshes end with it
	cancel    context.CancelFunc
	born      time.Time
	poll      time.Duration // how long who waits for another process sleeps at first, see loadLeased

	flights  singleflight.Group
	waiters  waiters
	work     work
	counters counters
	warned   atomic.Int64 // ns since born when a warning was last logged
}

// New returns a cache whose keys are cache:<namespace>:<key>. The namespace is 1
// to 64 of [A-Za-z0-9._@-]; New panics if it is not, because it comes from the
// program. One namespace holds values of one type.
//
// rdb must not retry (MaxRetries -1) and must heed deadlines
// (ContextTimeoutEnabled), without which Options.Budget means nothing. New does
// not speak to Redis.
func New[V any](rdb redis.UniversalClient, namespace string, o Options[V]) *Cache[V] {
	if !validNamespace(namespace) {
		panic(fmt.Sprintf("cache: namespace %q is not 1 to %d of [A-Za-z0-9._@-]", namespace, maxNamespace))
	}
	c := &Cache[V]{rdb: rdb, namespace: namespace, o: o.withDefaults(), born: time.Now(), poll: firstPause}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.waiters.byName = map[string]*waiter{}
	c.work.refreshing = map[string]struct{}{}
	c.work.most = c.o.Refreshes
	c.warned.Store(-int64(time.Second))
	return c
}

func (o Options[V]) withDefaults() Options[V] {
	for _, d := range []struct {
		field     *time.Duration
		otherwise time.Duration
	}{
		{&o.TTL, 300 * time.Second}, {&o.Lease, 5 * time.Second}, {&o.Wait, 3 * time.Second},
		{&o.LoadTimeout, 10 * time.Second}, {&o.Backoff, time.Second}, {&o.Budget, 100 * time.Millisecond},
	} {
		if *d.field <= 0 {
			*d.field = d.otherwise
		}
		*d.field = max(*d.field, time.Millisecond) // Redis's unit
	}
	o.Stale = orDefault(o.Stale, 60*time.Second)
	o.NotFoundTTL = orDefault(o.NotFoundTTL, 30*time.Second)
	if o.Jitter == 0 {
		o.Jitter = 0.1
	}
	o.Jitter = min(o.Jitter, 1)
	if o.Refreshes <= 0 {
		o.Refreshes = 16
	}
	if o.Codec == nil {
		o.Codec = JSON[V]{}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// orDefault leaves 0 to those who asked for nothing by a value below it.
func orDefault(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return max(d, 0)
}

// Get returns the value of key: from Redis if it is fresh; from Redis too if it
// is stale, and then a refresh begins in the background; else what load returns.
// ErrNotFound says that load found nothing, now or earlier.
//
// Any number of concurrent calls, in any number of processes, cause one load: of
// the loaders given, one is called, with the values of one caller's ctx but not
// its end, which ends only that caller's waiting. More than one is called only
// when a load fails, outlasts Options.Lease or Options.Wait, or Redis fails.
// What is served was loaded at most TTL + Stale ago, counted from the beginning of
// its load by Redis's clock.
//
// Get returns with ctx's error when ctx ends. (A call to Redis heeds a deadline at
// once, a cancellation within Options.Budget.)
func (c *Cache[V]) Get(ctx context.Context, key string, load Loader[V]) (v V, err error) {
	if err := checkKey(key); err != nil {
		return v, err
	}
	f, err := c.read(ctx, key)
	if over(ctx) {
		c.counters.misses.Add(1)
		return v, cmp.Or(ctx.Err(), context.DeadlineExceeded)
	}
	if err != nil || f.state == absent { // an error may be this caller's alone: the flight asks once more
		return c.join(ctx, key, flight[V]{load: load, want: anyEntry})
	}
	v, err = c.decode(f.content)
	switch {
	case err != nil && !errors.Is(err, ErrNotFound):
		c.failed("decode an entry", err)
		return c.join(ctx, key, flight[V]{load: load, want: noEntry})
	case f.state == fresh:
		c.counters.hits.Add(1)
	default:
		c.counters.stale.Add(1)
		c.refresh(ctx, key, load)
	}
	return v, err
}

// GetWithin is Get for a caller who will not have a value whose load began longer
// than age ago, and would rather wait. If it must load and the load fails, what
// is stored stays for others.
func (c *Cache[V]) GetWithin(ctx context.Context, key string, age time.Duration, load Loader[V]) (v V, err error) {
	if err := checkKey(key); err != nil {
		return v, err
	}
	return c.join(ctx, key, flight[V]{load: load, want: youngerThan(age)})
}

// Delete forgets key. A load of it that is under way still answers those who wait
// for it, but is not stored.
func (c *Cache[V]) Delete(ctx context.Context, key string) error {
	if err := checkKey(key); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.o.Budget)
	defer cancel()
	if err := c.rdb.Del(ctx, valueKey(c.namespace, key), leaseKey(c.namespace, key)).Err(); err != nil {
		c.failed("delete", err)
		return fmt.Errorf("delete from cache: %w", err)
	}
	return nil
}

// Channel is where processes tell each other that a load has ended. Whoever is
// subscribed to it passes each payload to Filled, and calls Resubscribed whenever
// messages may have been missed. Without a subscription, or when a message is
// lost, who waits looks by itself, at first after 10 ms and then less and less
// often.
func (c *Cache[V]) Channel() string { return channel(c.namespace) }

// Filled takes a message of Channel. It never blocks.
func (c *Cache[V]) Filled(payload string) { c.waiters.wake(payload) }

// Resubscribed has everyone who waits look. It never blocks.
func (c *Cache[V]) Resubscribed() { c.waiters.wakeAll() }

// Close ends the contexts of the loads and refreshes under way and waits for
// them. Afterwards only what is in Redis is served.
func (c *Cache[V]) Close() {
	c.work.close()
	c.cancel()
	c.work.group.Wait()
}

// over reports whether ctx has ended, or is about to: a connection's deadline
// that was taken from it strikes a little before.
func over(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && !time.Now().Before(deadline)
}

// failed counts and logs an error of Redis, or in what it holds.
func (c *Cache[V]) failed(what string, err error) {
	c.counters.redisErrors.Add(1)
	c.warn(what, err)
}

func (c *Cache[V]) warn(what string, err error) {
	now, last := int64(time.Since(c.born)), c.warned.Load()
	if now-last > int64(time.Second) && c.warned.CompareAndSwap(last, now) {
		c.o.Log.Warn("cache: "+what, "namespace", c.namespace, "error", err)
	}
}
