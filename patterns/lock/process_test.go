package lock

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/internal/testing/childtest"
	"herald/internal/testing/redistest"
)

// The environment of a helper process: which helper to run, and the addresses of the
// protected Redis server followed by the lock's nodes.
const (
	helperVariable  = "LOCK_TEST_HELPER"
	serversVariable = "LOCK_TEST_SERVERS"
)

func startHelper(t *testing.T, name, protected string, nodes []string) *childtest.Process {
	t.Helper()
	return childtest.StartSelf(t, helperVariable+"="+name, serversVariable+"="+protected+" "+strings.Join(nodes, " "))
}

// runHelper is the main function of a helper process. It prints what happens, and the
// test judges it.
func runHelper(name string) {
	addrs := strings.Fields(os.Getenv(serversVariable))
	protected, nodes := client(addrs[0]), clients(addrs[1:])
	helpers := map[string]func(*redis.Client, []redis.UniversalClient) error{"hold": hold, "increment": increment}
	if err := helpers[name](protected, nodes); err != nil {
		fmt.Println("failed", err)
	}
	fmt.Println("end .")
}

const (
	helperTTL  = 2 * time.Second
	increments = 250
)

// write is a protected write.
var write = NewScript(`return redis.call('SET', KEYS[1], ARGV[1])`)

// hold takes the lock, waits for a line, and then writes without a look at its
// context, like a process that was paused just after it looked.
func hold(protected *redis.Client, nodes []redis.UniversalClient) error {
	l := New(nodes, patient())
	err := l.WithLock(context.Background(), "r", helperTTL, func(ctx context.Context, tok Token) error {
		fmt.Println("holds", int64(tok))
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
		_, err := write.Run(context.Background(), protected, "r:guard", tok, []string{"r"}, "first")
		fmt.Println("fenced", errors.Is(err, ErrFenced), err)
		<-ctx.Done()
		fmt.Println("context", context.Cause(ctx))
		return nil
	})
	fmt.Println("lost", errors.Is(err, ErrLost), err)
	return nil
}

// increment adds to a number in Redis in the most careless way: read, add one, write.
func increment(protected *redis.Client, nodes []redis.UniversalClient) error {
	o, ctx := patient(), context.Background()
	o.RetryDelay, o.Jitter = 10*time.Millisecond, 20*time.Millisecond
	l := New(nodes, o)
	for done := 0; done < increments; {
		err := l.WithLock(ctx, "counter", ttl, func(ctx context.Context, tok Token) error {
			n, err := protected.Get(ctx, "counter").Int()
			if err != nil && !errors.Is(err, redis.Nil) {
				return err
			}
			_, err = write.Run(ctx, protected, "counter:guard", tok, []string{"counter"}, n+1)
			return err
		})
		switch {
		case err == nil:
			done++
		case !errors.Is(err, ErrTaken): // after 10,000 tries
			return err
		}
	}
	return nil
}

func TestWriteOfAPausedHolderIsRefused(t *testing.T) {
	t.Parallel()
	protected, nodes := redistest.Start(t), addrs(servers(t, 5))
	l := locker(t, nodes, patient())
	paused := startHelper(t, "hold", protected.Addr, nodes)
	first := paused.Expect("holds")
	paused.Stop()

	// The stopped process can't extend the lock, so it is free after its TTL.
	rdb := protected.Client()
	err := l.WithLock(t.Context(), "r", ttl, func(ctx context.Context, tok Token) error {
		if now := fmt.Sprint(int64(tok)); len(now) != len(first) || now <= first {
			t.Errorf("token %s after %s", now, first)
		}
		if _, err := write.Run(ctx, rdb, "r:guard", tok, []string{"r"}, "second"); err != nil {
			t.Errorf("the holder's write: %v", err)
		}
		paused.Send("")
		paused.Continue()
		if got := paused.Expect("fenced"); !strings.HasPrefix(got, "true") {
			t.Errorf("the paused process's write: %s, want it fenced", got)
		}
		if got := paused.Expect("context"); got != ErrLost.Error() {
			t.Errorf("the paused process's context: %s, want %v", got, ErrLost)
		}
		if got := paused.Expect("lost"); !strings.HasPrefix(got, "true") {
			t.Errorf("the paused process's WithLock returned %s, want ErrLost", got)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if v := rdb.Get(t.Context(), "r").Val(); v != "second" {
		t.Errorf("the protected key is %q, want \"second\"", v)
	}
}

func TestProcessesLoseNoIncrement(t *testing.T) {
	t.Parallel()
	const processes = 8
	protected, nodes := redistest.Start(t), addrs(servers(t, 5))
	began := time.Now()
	var all []*childtest.Process
	for range processes {
		all = append(all, startHelper(t, "increment", protected.Addr, nodes))
	}
	for _, p := range all {
		p.Expect("end")
	}
	if n, err := protected.Client().Get(t.Context(), "counter").Int(); err != nil || n != processes*increments {
		t.Errorf("counted %d, %v; want %d", n, err, processes*increments)
	}
	t.Logf("%d increments by %d processes in %v", processes*increments, processes, time.Since(began))
}
