package cache

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"herald/internal/redisx"
	"herald/internal/testing/redistest"
)

// TestMain runs the tests, or, in a process that a test started, a helper.
func TestMain(m *testing.M) {
	if address := os.Getenv(helperVariable); address != "" {
		runHelper(address)
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// patience is how long anything that must happen may take before a test fails.
const patience = 30 * time.Second

var errBackend = errors.New("backend is broken")

// source is a backend: what it holds, and how often it was asked.
type source struct {
	loads atomic.Int64
	next  atomic.Value // func(ctx) (string, error)
}

func newSource(answer func(ctx context.Context) (string, error)) *source {
	s := &source{}
	s.answer(answer)
	return s
}

func (s *source) answer(f func(ctx context.Context) (string, error)) { s.next.Store(f) }

func (s *source) load(ctx context.Context) (string, error) {
	s.loads.Add(1)
	return s.next.Load().(func(context.Context) (string, error))(ctx)
}

func always(v string, err error) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return v, err }
}

// gate is a loader's answer that waits until the test says so.
type gate struct {
	entered chan context.Context // one for each load that waits
	release chan struct{}        // closed by open
	open    func()
}

func newGate(t *testing.T) *gate {
	g := &gate{entered: make(chan context.Context, 100), release: make(chan struct{})}
	g.open = sync.OnceFunc(func() { close(g.release) })
	t.Cleanup(g.open)
	return g
}

func (g *gate) then(v string, err error) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		g.entered <- ctx
		<-g.release
		return v, err
	}
}

func onMini(t *testing.T, o Options[string]) (*miniredis.Miniredis, *Cache[string]) {
	t.Helper()
	m := miniredis.RunT(t)
	m.ClockTTL(true)
	m.SetTime(epoch)
	rdb := redis.NewClient(redisx.Configure(&redis.Options{Addr: m.Addr()}, 0))
	t.Cleanup(func() { _ = rdb.Close() })
	return m, newCache(t, rdb, o)
}

// epoch is what miniredis's clock says at first.
var epoch = time.UnixMilli(1_764_000_000_123).UTC()

func onRedis(t *testing.T, o Options[string]) (*redistest.Server, *Cache[string]) {
	t.Helper()
	s := redistest.Start(t)
	return s, newCache(t, s.Client(), o)
}

// newCache gives a loaded machine the time it takes; the tests of outages set a
// budget of their own.
func newCache(t *testing.T, rdb *redis.Client, o Options[string]) *Cache[string] {
	t.Helper()
	if o.Budget == 0 {
		o.Budget = patience
	}
	c := New(rdb, "test", o)
	t.Cleanup(c.Close)
	return c
}

func want(t *testing.T, c *Cache[string], key string, s *source, value string, err error) {
	t.Helper()
	if got, gotErr := c.Get(t.Context(), key, s.load); got != value || !errors.Is(gotErr, err) {
		t.Fatalf("Get(%s): %q, %v; want %q, %v", key, got, gotErr, value, err)
	}
}

func wantLoads(t *testing.T, s *source, n int64) {
	t.Helper()
	if got := s.loads.Load(); got != n {
		t.Fatalf("%d loads, want %d", got, n)
	}
}

// await polls for what is announced to nobody.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v until %s", patience, what)
		}
	}
}

func receive[T any](t *testing.T, what string, ch <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(patience):
		t.Fatalf("waited %v for %s", patience, what)
	}
	return v
}
