// Package cache is a cache-aside layer in Redis for values that are expensive to load,
// shared by any number of processes and safe against cache stampedes.
//
// # What it does
//
// [Cache.Get] returns the cached value, or calls a loader and stores its result.
// Concurrent misses of a key cause one load in the whole cluster; the other callers
// wait for it. A value that has just expired is still served for the stale window,
// while one process refreshes it in the background (stale-while-revalidate, RFC 5861).
//
// # How
//
// Within a process, golang.org/x/sync/singleflight merges the callers. Across processes
// a lease in Redis elects the one that loads: the memcached lease of "Scaling Memcache
// at Facebook", NSDI 2013, section 3.2.1. A value is stored only while its lease is
// valid. So a slow or suspended loader can't overwrite a newer value, or bring back a
// deleted one. TTLs are jittered, so that keys loaded together don't expire together.
//
// # Guarantees and limits
//
// A value that comes from Redis was loaded at most TTL + Stale ago. Errors are not
// cached; "not found" is ([ErrNotFound]). A process that dies while loading blocks the
// others for at most Options.Wait. There is no local copy: a hit costs one round trip.
// It needs one Redis primary; Redis Cluster is not supported. keys.go lists the keys.
//
// # When Redis fails
//
// The cache falls through to the loader, one load per process and key at a time. A
// Redis server that hangs costs each call Options.Budget first.
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
	// ErrNotFound is returned by a Loader, possibly wrapped, if the value doesn't
	// exist. It is cached for Options.NotFoundTTL.
	ErrNotFound = errors.New("not found")

	// ErrClosed means that the cache was closed before a necessary load could start.
	ErrClosed = errors.New("cache is closed")
)

// Options configures a Cache. The zero value works.
type Options[V any] struct {
	// TTL is how long a value is fresh, from the start of its load. Default 300 s.
	TTL time.Duration
	// Stale is how long after TTL a value is still served while it is refreshed in
	// the background. Default 60 s; negative: not at all.
	Stale time.Duration
	// NotFoundTTL is the TTL of "not found". Its stale window is the shorter of
	// NotFoundTTL and Stale. Default 30 s; negative: "not found" is not cached.
	NotFoundTTL time.Duration
	// Jitter is the maximum share of a TTL by which it is shortened at random.
	// Default 0.1; negative: none.
	Jitter float64

	// Lease is how long one process may load a key exclusively, at least 1 ms. A
	// longer load still answers the callers in its process, but is not stored.
	// Default 5 s.
	Lease time.Duration
	// Wait is how long a process waits for another's load before it loads the value
	// itself, without storing it. Default 3 s.
	Wait time.Duration
	// LoadTimeout is the deadline of a loader's context. Default 10 s.
	LoadTimeout time.Duration
	// Refreshes limits the concurrent background refreshes of this process. Beyond
	// it a refresh is left to a later Get. Default 16.
	Refreshes int
	// Backoff is the pause after a failed refresh of a key. Default 1 s.
	Backoff time.Duration

	// Budget is the time limit of one call to Redis. Default 100 ms.
	Budget time.Duration
	// Codec encodes values. Default JSON.
	Codec Codec[V]
	// Log gets warnings when Redis or a refresh fails, at most one per second, and the
	// stack of a loader that panicked. Default: discarded.
	Log *slog.Logger
}

// Loader loads a value from its source. It must return soon after ctx ends. All
// waiting callers get its error, which is never cached. A panic is recovered and
// reported to them as a *PanicError.
type Loader[V any] func(ctx context.Context) (V, error)

// Cache is a namespace of values of one type. It is safe for concurrent use. Callers
// must not modify returned values, which may be shared.
type Cache[V any] struct {
	// Static after construction.
	rdb       redis.UniversalClient
	namespace string
	o         Options[V]
	ctx       context.Context // of loads and refreshes; cancelled by Close
	cancel    context.CancelFunc
	born      time.Time
	poll      time.Duration // first pause between polls for another process's load, see loadLeased

	flights  singleflight.Group
	waiters  waiters
	work     work
	counters counters
	warned   atomic.Int64 // time of the last warning, ns since born
}

// New returns a cache whose keys are cache:<namespace>:<key>. The namespace is 1 to 64
// of [A-Za-z0-9._@-]; any other is a programming error, and New panics. A namespace
// holds values of one type.
//
// rdb must not retry (MaxRetries -1). It must obey deadlines (ContextTimeoutEnabled),
// or Options.Budget has no effect. New does not contact Redis.
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
		field *time.Duration
		value time.Duration
	}{
		{&o.TTL, 300 * time.Second}, {&o.Lease, 5 * time.Second}, {&o.Wait, 3 * time.Second},
		{&o.LoadTimeout, 10 * time.Second}, {&o.Backoff, time.Second}, {&o.Budget, 100 * time.Millisecond},
	} {
		if *d.field <= 0 {
			*d.field = d.value
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

// orDefault returns the default for 0, and 0 for a negative d, which means "none".
func orDefault(d, value time.Duration) time.Duration {
	if d == 0 {
		return value
	}
	return max(d, 0)
}

// Get returns the value of key (1 to 512 bytes). A fresh value comes from Redis. A
// stale one too, and its refresh starts in the background. A missing one is loaded.
// ErrNotFound means that the loader found nothing, now or earlier.
//
// Concurrent calls in any number of processes cause one load. The loader's context has
// the values of one caller's ctx, but not its cancellation, which ends only that
// caller's waiting. A second loader is called only if a load fails, outlasts
// Options.Lease or Options.Wait, or Redis fails. The age of a value, at most
// TTL + Stale, counts from the start of its load by Redis's clock.
//
// Get returns ctx's error when ctx ends: a deadline takes effect at once, a
// cancellation during a call to Redis within Options.Budget.
func (c *Cache[V]) Get(ctx context.Context, key string, load Loader[V]) (v V, err error) {
	if err := checkKey(key); err != nil {
		return v, err
	}
	f, err := c.read(ctx, key)
	if expired(ctx) {
		c.counters.misses.Add(1)
		return v, cmp.Or(ctx.Err(), context.DeadlineExceeded)
	}
	if err != nil || f.state == absent { // the error may be due to this caller's deadline, so the flight asks again
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

// GetWithin is like Get, but waits for a load rather than return a value whose load
// started longer than age ago. If that load fails, the stored value stays for others.
func (c *Cache[V]) GetWithin(ctx context.Context, key string, age time.Duration, load Loader[V]) (v V, err error) {
	if err := checkKey(key); err != nil {
		return v, err
	}
	return c.join(ctx, key, flight[V]{load: load, want: youngerThan(age)})
}

// Delete removes key. A load in progress still answers its callers, but its result is
// not stored.
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

// Channel is the pub/sub channel on which processes announce the end of a load. The
// subscriber passes each payload to Filled, and calls Resubscribed whenever messages
// may have been missed. A subscription is optional: waiters also poll, after 10 ms
// first and with backoff up to 640 ms.
func (c *Cache[V]) Channel() string { return channel(c.namespace) }

// Filled handles a message of Channel. It never blocks.
func (c *Cache[V]) Filled(payload string) { c.waiters.wake(payload) }

// Resubscribed makes all waiters poll at once. It never blocks.
func (c *Cache[V]) Resubscribed() { c.waiters.wakeAll() }

// Close cancels the running loads and refreshes and waits for them. Afterwards Get
// serves only what is in Redis.
func (c *Cache[V]) Close() {
	c.work.close()
	c.cancel()
	c.work.group.Wait()
}

// expired reports whether ctx has ended or its deadline has passed: a connection's
// deadline derived from it can strike slightly earlier than ctx ends.
func expired(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && !time.Now().Before(deadline)
}

// failed counts and logs an error of Redis or in a stored entry.
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
