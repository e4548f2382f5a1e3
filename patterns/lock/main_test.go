package lock

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"herald/internal/redisx"
	"herald/internal/testing/redistest"
)

// actVariable makes the test binary play one of the acts instead of running tests:
// a process of its own, to be stopped or killed.
const actVariable = "LOCK_TEST_ACT"

func TestMain(m *testing.M) {
	if act := os.Getenv(actVariable); act != "" {
		play(act)
		return
	}
	goleak.VerifyTestMain(m)
}

// servers starts n real Redis.
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

// locker is one process's, as it were: it shares nothing with another but Redis.
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

// patient tolerates a machine that is busy with other things.
func patient() Options {
	return Options{Budget: 2 * time.Second, Retries: 10000, RetryDelay: time.Millisecond, Jitter: 4 * time.Millisecond}
}

// once tries once.
func once() Options {
	o := patient()
	o.Retries = -1
	return o
}

// ttl is long enough that nothing expires unless a test means it to.
const ttl = time.Minute

// token takes and gives back the lock, and returns its token.
func token(t testing.TB, l *Locker, resource string) (got Token) {
	t.Helper()
	err := l.WithLock(t.Context(), resource, ttl, func(_ context.Context, tok Token) error { got = tok; return nil })
	if err != nil {
		t.Fatalf("lock %s: %v", resource, err)
	}
	return got
}

// holders returns what the lock's key is on each node, in order.
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

// await waits for what another goroutine or process brings about.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// ended waits for the context, whose end is an event of the lock's.
func ended(t testing.TB, ctx context.Context) error {
	t.Helper()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(30 * time.Second):
		return fmt.Errorf("the context has not ended")
	}
}
