package cache

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/internal/redisx"
	"herald/internal/testing/redistest"
)

// Without Redis each process loads every key, one load at a time.
// Not parallel: all callers must have joined the load within the pause below.
func TestLoadsOncePerProcessWithoutRedis(t *testing.T) {
	server := redistest.Start(t)
	rdb := redis.NewClient(redisx.Configure(&redis.Options{Addr: server.Addr}, 0))
	defer rdb.Close()
	c := newCache(t, rdb, Options[string]{})
	server.Kill()
	g := newGate(t)
	s := newSource(g.then("v", nil))
	got := make(chan map[string]int, 1)
	go func() { got <- crowd(t.Context(), c, 100, s.load) }()
	receive(t, "the load", g.entered)
	await(t, "all callers have failed to reach Redis", func() bool { return c.Stats().RedisErrors >= 101 })
	time.Sleep(20 * time.Millisecond) // from the error to the flight
	g.open()
	if a := receive(t, "the answers", got); a["v <nil>"] != 100 {
		t.Errorf("%v", a)
	}
	wantLoads(t, s, 1)
	server.Restart()
	await(t, "Redis is back", func() bool { return rdb.Ping(t.Context()).Err() == nil })
	want(t, c, "k", newSource(always("v", nil)), "v", nil)
	want(t, c, "k", newSource(always("other", nil)), "v", nil)
}

func TestLoadsWhileRedisHangs(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := newCache(t, server.Client(), Options[string]{Budget: 50 * time.Millisecond})
	s := newSource(always("v", nil))
	server.Stop()
	want(t, c, "k", s, "v", nil)
	wantLoads(t, s, 1)

	// The caller's deadline precedes the budget.
	patient := newCache(t, server.Client(), Options[string]{Budget: time.Hour})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	done := make(chan error, 1)
	go func() { _, err := patient.Get(ctx, "k", s.load); done <- err }()
	if err := receive(t, "the answer", done); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if n := patient.Stats(); n.RedisErrors != 0 || n.Misses != 1 {
		t.Errorf("%+v", n)
	}
	if err := c.Delete(t.Context(), "k"); err == nil {
		t.Error("deleted without Redis")
	}
}

// While Redis is out of memory, stored values are served and missing ones loaded.
func TestLoadsWhileRedisIsOutOfMemory(t *testing.T) {
	t.Parallel()
	server, c := onRedis(t, Options[string]{})
	want(t, c, "k", newSource(always("v", nil)), "v", nil)
	if err := server.Client().ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	want(t, c, "k", newSource(always("other", nil)), "v", nil)
	want(t, c, "new", newSource(always("n", nil)), "n", nil)
}

// The documented behaviour during an outage, with the default options.
func TestLoadsDuringAnOutageWithTheDefaults(t *testing.T) {
	t.Parallel()
	for name, crash := range map[string]func(*redistest.Server){"kill -9": (*redistest.Server).Kill, "SIGSTOP": (*redistest.Server).Stop} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t)
			rdb := redis.NewClient(redisx.Configure(&redis.Options{Addr: server.Addr}, 0))
			defer rdb.Close()
			c := New(rdb, "test", Options[string]{})
			defer c.Close()
			want(t, c, "before", newSource(always("v", nil)), "v", nil)
			crash(server)
			began := time.Now()
			want(t, c, "k", newSource(always("v", nil)), "v", nil)
			t.Logf("%s: loaded from the source after %v", name, time.Since(began).Round(100*time.Microsecond))
		})
	}
}
