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

// state is what Redis said about a key.
type state string

const (
	absent state = "" // nothing to serve
	fresh  state = "fresh"
	stale  state = "stale"
	leased state = "lease" // we load
	held   state = "held"  // another loads
)

// found is an answer of read.lua or acquire.lua.
type found struct {
	state   state
	content string        // fresh, stale
	began   string        // leased: Redis's time in ms
	left    time.Duration // held: of the other's lease
}

// wanted says which entry makes a load unnecessary, in acquire.lua's words.
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

// ask runs a script that finds something, within the budget.
func (c *Cache[V]) ask(ctx context.Context, script *redis.Script, keys []string, args ...any) (found, error) {
	inTime, cancel := context.WithTimeout(ctx, c.o.Budget)
	defer cancel()
	v, err := script.Run(inTime, c.rdb, keys, args...).StringSlice()
	if errors.Is(err, redis.Nil) {
		return found{}, nil
	}
	if err == nil && len(v) != 2 {
		err = fmt.Errorf("unexpected answer of %d parts", len(v))
	}
	if err != nil {
		if !over(ctx) { // else who asked is gone, which says nothing about Redis
			c.failed("ask Redis", err)
		}
		return found{}, err
	}
	f := found{state: state(v[0])}
	switch f.state {
	case leased:
		f.began = v[1]
	case held:
		ms, _ := strconv.ParseInt(v[1], 10, 64)
		f.left = time.Duration(ms) * time.Millisecond
		if ms < 0 { // without an end, so not ours
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

// store stores content for as long as ttl and window say.
func (c *Cache[V]) store(ctx context.Context, l lease, content []byte, ttl, window time.Duration) {
	freshFor := c.jittered(ttl)
	stored, err := c.finish(ctx, storeScript, []string{valueKey(c.namespace, l.key), leaseKey(c.namespace, l.key)},
		l.token, l.began, freshFor.Milliseconds(), (freshFor + window).Milliseconds(), content, channel(c.namespace), l.key)
	if err == nil && !stored {
		c.counters.late.Add(1)
	}
	c.waiters.wake(l.key)
}

// release gives a lease back; nobody takes it for as long as pause says.
func (c *Cache[V]) release(ctx context.Context, l lease, pause time.Duration) {
	_, _ = c.finish(ctx, releaseScript, []string{leaseKey(c.namespace, l.key)}, // expires by itself
		l.token, pause.Milliseconds(), channel(c.namespace), l.key)
	c.waiters.wake(l.key)
}

// finish runs a script that ends a lease: also when whoever wanted the load is
// gone, because others wait for it.
func (c *Cache[V]) finish(ctx context.Context, script *redis.Script, keys []string, args ...any) (bool, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.o.Budget)
	defer cancel()
	n, err := script.Run(ctx, c.rdb, keys, args...).Int()
	if err != nil {
		c.failed("end a lease", err)
	}
	return n == 1, err
}

// jittered shortens d at random, so that what was loaded together does not
// expire together.
func (c *Cache[V]) jittered(d time.Duration) time.Duration {
	return max(d-time.Duration(mathrand.Float64()*math.Max(c.o.Jitter, 0)*float64(d)), time.Millisecond)
}

func newToken() string { return rand.Text() }
