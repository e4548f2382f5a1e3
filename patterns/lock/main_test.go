package lock

import (
	"context"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"herald/internal/redisx"
	"herald/internal/testing/redistest"
)

// TestMain runs the tests, or a helper in a process that a test started. Most tests
// wait for redis-servers, so more of them run at once than there are CPUs.
func TestMain(m *testing.M) {
	if name := os.Getenv(helperVariable); name != "" {
		runHelper(name)
		return
	}
	_ = flag.Set("test.parallel", "8")
	goleak.VerifyTestMain(m)
}

// servers starts n redis-servers.
func servers(t testing.TB, n int) []*redistest.Server {
	t.Helper()
	all := make([]*redistest.Server, n)
	for i := range all {
		all[i] = redistest.Start(t)
	}
	return all
}

func addrs(servers []*redistest.Server) []string {
	var a []string
	for _, s := range servers {
		a = append(a, s.Addr)
	}
	return a
}

func client(addr string) *redis.Client {
	return redis.NewClient(redisx.Configure(&redis.Options{Addr: addr}, 0))
}

func clients(addrs []string) (all []redis.UniversalClient) {
	for _, a := range addrs {
		all = append(all, client(a))
	}
	return all
}

// locker returns a Locker that shares only Redis with other Lockers, as another
// process would.
func locker(t testing.TB, addrs []string, o Options) *Locker {
	t.Helper()
	nodes := clients(addrs)
	t.Cleanup(func() {
		for _, n := range nodes {
			_ = n.Close()
		}
	})
	return New(nodes, o)
}

// patient tolerates a busy machine.
func patient() Options {
	return Options{Budget: 2 * time.Second, Retries: 10000, RetryDelay: time.Millisecond, Jitter: 4 * time.Millisecond}
}

// oneTry does not retry.
func oneTry() Options {
	o := patient()
	o.Retries = -1
	return o
}

// ttl is long enough to expire only in tests that wait for it.
const ttl = time.Minute

// token acquires and releases the lock, and returns its token.
func token(t testing.TB, l *Locker, resource string) (got Token) {
	t.Helper()
	err := l.WithLock(t.Context(), resource, ttl, func(_ context.Context, tok Token) error { got = tok; return nil })
	if err != nil {
		t.Fatalf("lock %s: %v", resource, err)
	}
	return got
}

// holders returns the value of the lock's key on each node, in order; "?" if the node
// doesn't answer.
func holders(t testing.TB, l *Locker, resource string) []string {
	t.Helper()
	var all []string
	for _, n := range l.nodes {
		v, err := n.Get(context.Background(), lockKey(resource)).Result()
		if err != nil && err != redis.Nil {
			v = "?"
		}
		all = append(all, v)
	}
	return all
}

func none(holders []string) bool { return strings.Join(holders, "") == "" }

// await polls until ok, which another goroutine or process brings about.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited 30 s for %s", what)
		}
	}
}

// ended waits for the end of the context and returns its cause.
func ended(t testing.TB, ctx context.Context) error {
	t.Helper()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(30 * time.Second):
		return errors.New("the context has not ended within 30 s")
	}
}
