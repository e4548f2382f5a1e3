package presence

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"herald/internal/redisx"
	"herald/internal/testing/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is a Tracker with connections that the test sets.
type node struct {
	*Tracker
	mu    sync.Mutex
	users map[string]int // guarded by mu
	stop  func()
}

func (n *node) Connections(userID string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.users[userID]
}

func (n *node) UserIDs(f func(string) bool) {
	n.mu.Lock()
	users := maps.Clone(n.users)
	n.mu.Unlock()
	for userID := range users {
		if !f(userID) {
			return
		}
	}
}

func (n *node) set(userID string, connections int) {
	n.mu.Lock()
	n.users[userID] = connections
	if connections == 0 {
		delete(n.users, userID)
	}
	n.mu.Unlock()
	n.Changed(userID)
}

// start runs a node. n.stop shuts it down cleanly.
func start(t *testing.T, addr, name string, o Options) *node {
	rdb := redis.NewClient(redisx.Configure(&redis.Options{Addr: addr}, 0))
	n := &node{users: map[string]int{}}
	n.Tracker = New(rdb, name, n, o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); n.Run(ctx) }()
	n.stop = sync.OnceFunc(func() { cancel(); <-done; _ = rdb.Close() })
	t.Cleanup(n.stop)
	return n
}

// await waits until Get returns the wanted presence of the user.
func (n *node) await(t *testing.T, userID string, want Presence) {
	t.Helper()
	var got Presence
	var err error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if got, err = n.Get(t.Context(), userID); err == nil && got == want {
			return
		}
	}
	t.Fatalf("presence of %s: %+v, %v; want %+v", userID, got, err, want)
}

func TestPresenceSumsAllNodes(t *testing.T) {
	addrs := map[string]string{"miniredis": miniredis.RunT(t).Addr(), "redis": redistest.Start(t).Addr}
	for name, addr := range addrs {
		t.Run(name, func(t *testing.T) {
			a, b := start(t, addr, "a", Options{}), start(t, addr, "b", Options{})
			a.await(t, "42", Presence{})
			a.set("42", 2)
			if got, err := a.Get(t.Context(), "42"); err != nil || got != (Presence{2, 1}) {
				t.Errorf("on the same node: %+v, %v", got, err)
			}
			b.await(t, "42", Presence{2, 1})
			b.set("42", 1)
			a.await(t, "42", Presence{3, 2})
			a.set("42", 0)
			b.await(t, "42", Presence{1, 1})
			b.set("42", 0)
			b.stop()
			a.await(t, "42", Presence{})
		})
	}
}

func TestThousandsOfConcurrentChanges(t *testing.T) {
	addr := redistest.Start(t).Addr
	a, b := start(t, addr, "a", Options{}), start(t, addr, "b", Options{})
	var wg sync.WaitGroup
	for i := range 3 * batchSize {
		wg.Go(func() { a.set(fmt.Sprint(i), i%3) })
	}
	wg.Wait()
	for i := range 3 * batchSize {
		want := Presence{i % 3, min(1, i%3)}
		b.await(t, fmt.Sprint(i), want)
	}
}

func TestDeadNodesCountExpires(t *testing.T) {
	m := miniredis.RunT(t)
	now := time.Now()
	m.SetTime(now)
	dead, other := start(t, m.Addr(), "dead", Options{}), start(t, m.Addr(), "other", Options{})
	dead.set("42", 1)
	other.await(t, "42", Presence{1, 1})
	m.SetTime(now.Add(2 * time.Minute)) // without an announcement of the dead node
	if got, err := other.Get(t.Context(), "42"); err != nil || got != (Presence{}) {
		t.Errorf("the dead node still counts: %+v, %v", got, err)
	}
}

func TestLostCountsAreAnnouncedAgain(t *testing.T) {
	srv := redistest.Start(t)
	a, b := start(t, srv.Addr, "a", Options{Lifetime: 300 * time.Millisecond}), start(t, srv.Addr, "b", Options{})
	a.set("42", 1)
	b.await(t, "42", Presence{1, 1})
	srv.Client().FlushAll(t.Context()) // until the next announcement
	b.await(t, "42", Presence{1, 1})
}

func TestCountsRecoverAfterARedisOutage(t *testing.T) {
	srv := redistest.Start(t)
	a, b := start(t, srv.Addr, "a", Options{}), start(t, srv.Addr, "b", Options{})
	srv.Stop()
	if _, err := a.Get(t.Context(), "42"); !errors.Is(err, redisx.ErrUnavailable) {
		t.Errorf("Get: %v", err)
	}
	a.set("42", 1)
	a.set("42", 3)
	srv.Continue()
	b.await(t, "42", Presence{3, 1})
}
