package cache

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"math"
	mathrand "math/rand/v2"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

var (
	//go:embed entry.lua
	entryLua string
	//go:embed read.lua
	readLua string
	//go:embed acquire.lua
	acquireLua string
	//go:embed store.lua
	storeLua string
	//go:embed release.lua
	releaseLua string

	readScript    = redis.NewScript(entryLua + readLua)
	acquireScript = redis.NewScript(entryLua + acquireLua)
	storeScript   = redis.NewScript(entryLua + storeLua)
	releaseScript = redis.NewScript(releaseLua)
)

// state is Redis's answer about a key.
type state string

const (
	absent  state = "" // nothing to serve
	fresh   state = "fresh"
	stale   state = "stale"
	leased  state = "lease"   // this process loads
	loading state = "loading" // another process loads
)

// found is the reply of read.lua or acquire.lua.
type found struct {
	state   state
	content string        // fresh, stale
	began   string        // leased: Redis's time, Unix ms
	left    time.Duration // loading: remaining time of the other process's lease
}

// wanted says which entry makes a load unnecessary (ARGV[3] of acquire.lua).
type wanted string

const (
	anyEntry   wanted = "any"
	freshEntry wanted = "fresh"
	noEntry    wanted = "-1"
)

func youngerThan(age time.Duration) wanted {
	return wanted(strconv.FormatInt(age.Milliseconds(), 10))
}

func (c *Cache[V]) read(ctx context.Context, key string) (found, error) {
	return c.ask(ctx, readScript, []string{valueKey(c.namespace, key)})
}

func (c *Cache[V]) acquire(ctx context.Context, key, token string, w wanted) (found, error) {
	keys := []string{valueKey(c.namespace, key), leaseKey(c.namespace, key)}
	return c.ask(ctx, acquireScript, keys, token, c.o.Lease.Milliseconds(), string(w))
}

// ask runs read.lua or acquire.lua within the budget.
func (c *Cache[V]) ask(ctx context.Context, script *redis.Script, keys []string, args ...any) (found, error) {
	inTime, cancel := context.WithTimeout(ctx, c.o.Budget)
	defer cancel()
	v, err := script.Run(inTime, c.rdb, keys, args...).StringSlice()
	if errors.Is(err, redis.Nil) {
		return found{}, nil
	}
	if err == nil && len(v) != 2 {
		err = fmt.Errorf("unexpected reply of %d parts", len(v))
	}
	if err != nil {
		if !expired(ctx) { // the caller's own deadline is no failure of Redis
			c.failed("read from Redis", err)
		}
		return found{}, err
	}
	f := found{state: state(v[0])}
	switch f.state {
	case leased:
		f.began = v[1]
	case loading:
		ms, _ := strconv.ParseInt(v[1], 10, 64)
		f.left = time.Duration(ms) * time.Millisecond
		if ms < 0 { // no expiry: not a lease of this package
			f.left = c.o.Lease
		}
	default:
		f.content = v[1]
	}
	return f, nil
}

// lease is the right to store what is loaded for a key.
type lease struct {
	key, token, began string
}

// store stores content, fresh for ttl and stale for window, and ends the lease.
func (c *Cache[V]) store(ctx context.Context, l lease, content []byte, ttl, window time.Duration) {
	freshFor := c.jittered(ttl)
	stored, err := c.finish(ctx, storeScript, []string{valueKey(c.namespace, l.key), leaseKey(c.namespace, l.key)},
		l.token, l.began, freshFor.Milliseconds(), (freshFor + window).Milliseconds(), content, channel(c.namespace), l.key)
	if err == nil && !stored {
		c.counters.late.Add(1)
	}
	c.waiters.wake(l.key)
}

// release ends a lease without a value. No process can acquire it again during pause.
func (c *Cache[V]) release(ctx context.Context, l lease, pause time.Duration) {
	_, _ = c.finish(ctx, releaseScript, []string{leaseKey(c.namespace, l.key)}, // an error is harmless: the lease expires
		l.token, pause.Milliseconds(), channel(c.namespace), l.key)
	c.waiters.wake(l.key)
}

// finish runs a script that ends a lease. It ignores ctx's end, because other callers
// may wait for the lease.
func (c *Cache[V]) finish(ctx context.Context, script *redis.Script, keys []string, args ...any) (bool, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.o.Budget)
	defer cancel()
	n, err := script.Run(ctx, c.rdb, keys, args...).Int()
	if err != nil {
		c.failed("end a lease", err)
	}
	return n == 1, err
}

// jittered shortens d at random, so that keys loaded together don't expire together.
func (c *Cache[V]) jittered(d time.Duration) time.Duration {
	return max(d-time.Duration(mathrand.Float64()*math.Max(c.o.Jitter, 0)*float64(d)), time.Millisecond)
}

func newToken() string { return rand.Text() }
