package cache

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// crowd calls Get n times concurrently and counts the answers.
func crowd(ctx context.Context, c *Cache[string], n int, load Loader[string]) map[string]int {
	var mu sync.Mutex
	answers := map[string]int{}
	var group sync.WaitGroup
	for range n {
		group.Go(func() {
			v, err := c.Get(ctx, "k", load)
			mu.Lock()
			defer mu.Unlock()
			answers[fmt.Sprint(v, " ", err)]++
		})
	}
	group.Wait()
	return answers
}

func TestOneLoadForACrowd(t *testing.T) {
	t.Parallel()
	_, c := onRedis(t, Options[string]{})
	g := newGate(t)
	s := newSource(g.then("v", nil))
	time.AfterFunc(50*time.Millisecond, g.open)
	if got := crowd(t.Context(), c, 500, s.load); got["v <nil>"] != 500 {
		t.Errorf("%v", got)
	}
	wantLoads(t, s, 1)
}

// All callers of a loader that panics, or ends its goroutine, get an error, and the next
// caller gets the lease.
func TestPanicOfALoaderIsAnError(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(){
		"loader panicked: bang":        func() { panic("bang") },
		"loader called runtime.Goexit": runtime.Goexit,
	} {
		t.Run(name, func(t *testing.T) {
			server, c := onRedis(t, Options[string]{Lease: time.Hour})
			g := newGate(t)
			s := newSource(func(ctx context.Context) (string, error) {
				_, _ = g.then("", nil)(ctx)
				end()
				return "never", nil
			})
			time.AfterFunc(50*time.Millisecond, g.open)
			got := crowd(t.Context(), c, 100, s.load)
			if got[" "+name] != 100 {
				t.Errorf("%v", got)
			}
			if n := server.Client().DBSize(t.Context()).Val(); n != 0 {
				t.Errorf("%d keys left", n)
			}
			var p *PanicError
			if _, err := c.Get(t.Context(), "k", s.load); !errors.As(err, &p) {
				t.Errorf("%v", err)
			}
			s.answer(always("v", nil))
			want(t, c, "k", s, "v", nil)
			if n := c.Stats(); n.LoadErrors != n.Loads-1 {
				t.Errorf("%+v", n)
			}
		})
	}
}

// A caller that stops waiting returns at once and does not end the others' load.
func TestCancelledCallerLeavesTheLoadRunning(t *testing.T) {
	t.Parallel()
	_, c := onRedis(t, Options[string]{})
	g := newGate(t)
	s := newSource(g.then("v", nil))
	type key struct{}
	first, leave := context.WithCancel(context.WithValue(t.Context(), key{}, "first"))
	left := make(chan error, 1)
	go func() { _, err := c.Get(first, "k", s.load); left <- err }()
	load := receive(t, "the load", g.entered)
	second := make(chan map[string]int, 1)
	go func() { second <- crowd(t.Context(), c, 10, s.load) }()
	leave()
	if err := receive(t, "the first to leave", left); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Get(short, "k", s.load); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if load.Err() != nil || load.Value(key{}) != "first" {
		t.Errorf("the load's context: %v, %v", load.Err(), load.Value(key{}))
	}
	g.open()
	if got := receive(t, "the others", second); got["v <nil>"] != 10 {
		t.Errorf("%v", got)
	}
	wantLoads(t, s, 1)
}

func TestLoadTimeout(t *testing.T) {
	t.Parallel()
	_, c := onRedis(t, Options[string]{LoadTimeout: 20 * time.Millisecond})
	s := newSource(func(ctx context.Context) (string, error) { <-ctx.Done(); return "", ctx.Err() })
	want(t, c, "k", s, "", context.DeadlineExceeded)
}

// holdLease takes the lease on k, as a process does that then dies.
func holdLease(t *testing.T, c *Cache[string], life time.Duration) {
	t.Helper()
	if err := c.rdb.Set(t.Context(), "lock:cache:test:k", "another's", life).Err(); err != nil {
		t.Fatal(err)
	}
}

// After Options.Wait a process loads the value itself, and does not store it without
// the lease.
func TestLoadsWithoutALeaseAfterWait(t *testing.T) {
	t.Parallel()
	server, c := onRedis(t, Options[string]{Wait: 100 * time.Millisecond})
	holdLease(t, c, 0)
	s := newSource(always("v", nil))
	want(t, c, "k", s, "v", nil)
	if server.Client().Exists(t.Context(), "cache:test:k").Val() != 0 {
		t.Error("the value was stored")
	}
	if n := c.Stats(); n.Waits != 1 || n.Loads != 1 || n.Misses != 1 {
		t.Errorf("%+v", n)
	}
}

// After the lease of a dead process has ended, a waiting process loads and stores.
func TestLoadsAfterTheLeaseOfADeadProcess(t *testing.T) {
	t.Parallel()
	server, c := onRedis(t, Options[string]{Wait: patience})
	holdLease(t, c, 100*time.Millisecond)
	want(t, c, "k", newSource(always("v", nil)), "v", nil)
	if server.Client().Exists(t.Context(), "cache:test:k").Val() != 1 {
		t.Error("the value was not stored")
	}
}

// A waiter is woken by a message or a new subscription, and otherwise polls.
func TestWaitersWakeUp(t *testing.T) {
	t.Parallel()
	for name, wake := range map[string]func(c *Cache[string]){
		"message":    func(c *Cache[string]) { c.Filled("k") },
		"subscribed": (*Cache[string]).Resubscribed,
		"polling":    nil,
	} {
		t.Run(name, func(t *testing.T) {
			_, c := onRedis(t, Options[string]{Wait: patience, Lease: patience})
			if wake != nil {
				c.poll = time.Hour
			}
			other := newCache(t, c.rdb.(*redis.Client), c.o)
			g := newGate(t)
			s := newSource(g.then("v", nil))
			got := make(chan map[string]int, 2)
			go func() { got <- crowd(t.Context(), other, 1, s.load) }()
			receive(t, "the load", g.entered)
			go func() { got <- crowd(t.Context(), c, 1, s.load) }()
			await(t, "the other waits", func() bool { return c.Stats().Waits == 1 })
			g.open()
			await(t, "it is stored", func() bool { return c.rdb.Exists(t.Context(), "cache:test:k").Val() == 1 })
			if wake != nil {
				wake(c)
			}
			for range 2 {
				if a := receive(t, "an answer", got); a["v <nil>"] != 1 {
					t.Errorf("%v", a)
				}
			}
			wantLoads(t, s, 1)
		})
	}
}

// makeStale loads keys whose TTL ends at once.
func makeStale(t *testing.T, c *Cache[string], keys ...string) {
	t.Helper()
	for _, k := range keys {
		want(t, c, k, newSource(always("old", nil)), "old", nil)
	}
	time.Sleep(2 * time.Millisecond)
}

var alwaysStale = Options[string]{TTL: time.Millisecond, Stale: time.Hour, Lease: patience, Refreshes: 2}

// Processes that serve the same stale key at the same time refresh it once.
func TestAStaleKeyIsRefreshedOnceInTheCluster(t *testing.T) {
	t.Parallel()
	_, c := onRedis(t, alwaysStale)
	other := newCache(t, c.rdb.(*redis.Client), alwaysStale)
	makeStale(t, c, "k")
	g := newGate(t)
	s := newSource(g.then("new", nil))
	for _, node := range []*Cache[string]{c, other} {
		if got := crowd(t.Context(), node, 200, s.load); got["old <nil>"] != 200 {
			t.Errorf("%v", got)
		}
	}
	receive(t, "the refresh", g.entered)
	wantLoads(t, s, 1)
}

func TestRefreshesAreLimited(t *testing.T) {
	t.Parallel()
	_, c := onRedis(t, alwaysStale)
	keys := []string{"a", "b", "c", "d", "e"}
	makeStale(t, c, keys...)
	g := newGate(t)
	s := newSource(g.then("new", nil))
	for _, k := range keys {
		want(t, c, k, s, "old", nil)
	}
	for range 2 {
		receive(t, "a refresh", g.entered)
	}
	if n := c.Stats(); n.Skipped != 3 || s.loads.Load() != 2 {
		t.Errorf("%+v, %d loads", n, s.loads.Load())
	}
}

func TestCloseWaitsForRefreshes(t *testing.T) {
	t.Parallel()
	server, c := onRedis(t, alwaysStale)
	makeStale(t, c, "k")
	entered, end := make(chan struct{}), make(chan struct{})
	var ended atomic.Bool
	want(t, c, "k", newSource(func(ctx context.Context) (string, error) {
		close(entered)
		<-ctx.Done() // by Close
		<-end
		ended.Store(true)
		return "", ctx.Err()
	}), "old", nil)
	receive(t, "the refresh", entered)
	closed := make(chan struct{})
	go func() { c.Close(); close(closed) }()
	select {
	case <-closed:
		t.Error("Close did not wait")
	case <-time.After(20 * time.Millisecond):
	}
	close(end)
	receive(t, "Close", closed)
	if !ended.Load() {
		t.Error("Close did not wait for the refresh")
	}
	if server.Client().TTL(t.Context(), "lock:cache:test:k").Val() > time.Second {
		t.Error("the lease was not released")
	}
	s := newSource(always("new", nil))
	want(t, c, "k", s, "old", nil)
	want(t, c, "other", s, "", ErrClosed)
	wantLoads(t, s, 0)
	c.Close()
}
