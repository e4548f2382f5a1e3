package cache

import (
	"context"
	"errors"
	"flag"
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

// TestMain runs the tests, or a helper in a process that a test started. Most tests
// wait, so more of them run at once than there are CPUs.
func TestMain(m *testing.M) {
	if address := os.Getenv(helperVariable); address != "" {
		runHelper(address)
		os.Exit(0)
	}
	_ = flag.Set("test.parallel", "8")
	goleak.VerifyTestMain(m)
}

// patience is how long a test waits for an expected event before it fails.
const patience = 30 * time.Second

var errBackend = errors.New("backend failed")

// source is a loader whose answer can change, and which counts its calls.
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

// gate makes a loader wait until the test calls open.
type gate struct {
	entered chan context.Context // the context of each waiting load
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

// epoch is the initial time of miniredis's clock.
var epoch = time.UnixMilli(1_764_000_000_123).UTC()

func onRedis(t *testing.T, o Options[string]) (*redistest.Server, *Cache[string]) {
	t.Helper()
	s := redistest.Start(t)
	return s, newCache(t, s.Client(), o)
}

// newCache sets a budget that tolerates a busy machine, unless o has one.
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

// await polls until ok, for conditions without an event.
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
