package lock

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/internal/testing/childtest"
	"herald/internal/testing/redistest"
)

// An actor is another process, of the same program. It plays an act with the
// nodes and the Redis that holds what is protected, tells what happens a line at a
// time, and goes on when it is told to.
type actor struct {
	t    *testing.T
	cmd  *exec.Cmd
	in   io.WriteCloser
	told *bufio.Scanner
}

const stageVariable = "LOCK_TEST_STAGE" // the protected Redis, then the nodes

func start(t *testing.T, act, protected string, nodes []string) *actor {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	a := &actor{t: t, cmd: exec.Command(self)}
	a.cmd.Env = append(os.Environ(), actVariable+"="+act, stageVariable+"="+protected+" "+strings.Join(nodes, " "))
	a.cmd.Stderr = t.Output()
	a.in, a.told = childtest.Start(t, a.cmd)
	t.Cleanup(func() {
		_ = a.cmd.Process.Signal(syscall.SIGCONT)
		_ = a.cmd.Process.Kill()
		_ = a.cmd.Wait()
	})
	return a
}

// hear waits for the next line, which is the word and what is returned.
func (a *actor) hear(word string) string {
	a.t.Helper()
	if !a.told.Scan() {
		a.t.Fatalf("the other process ended before %q", word)
	}
	rest, ok := strings.CutPrefix(a.told.Text(), word+" ")
	if !ok {
		a.t.Fatalf("the other process tells %q, not %q", a.told.Text(), word)
	}
	return rest
}

func (a *actor) proceed() {
	if _, err := fmt.Fprintln(a.in); err != nil {
		a.t.Error(err)
	}
}

func (a *actor) signal(s syscall.Signal) {
	if err := a.cmd.Process.Signal(s); err != nil {
		a.t.Error(err)
	}
}

// play is the other process. It is not a test: what it finds it tells.
func play(act string) {
	stage := strings.Fields(os.Getenv(stageVariable))
	protected, nodes := client(stage[0]), clients(stage[1:])
	acts := map[string]func(*redis.Client, []redis.UniversalClient) error{"hold": hold, "increment": increment}
	if err := acts[act](protected, nodes); err != nil {
		fmt.Println("failed", err)
	}
	fmt.Println("end .")
}

const (
	actTTL     = 2 * time.Second
	increments = 1000
)

// write is a protected write.
var write = NewScript(`return redis.call('SET', KEYS[1], ARGV[1])`)

// hold takes the lock, waits to be told, and then writes, whatever its context says:
// as one does who looked at it a moment before being paused.
func hold(protected *redis.Client, nodes []redis.UniversalClient) error {
	l := New(nodes, patient())
	err := l.WithLock(context.Background(), "r", actTTL, func(ctx context.Context, tok Token) error {
		fmt.Println("holds", int64(tok))
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
		_, err := write.Run(context.Background(), protected, "r:guard", tok, []string{"r"}, "first")
		fmt.Println("fenced", errors.Is(err, ErrFenced), err)
		fmt.Println("context", cause(ctx))
		return nil
	})
	fmt.Println("lost", errors.Is(err, ErrLost), err)
	return nil
}

func cause(ctx context.Context) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

// increment counts in Redis as carelessly as can be: read, add one, write.
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
		case !errors.Is(err, ErrTaken): // one may find it taken 10,000 times
			return err
		}
	}
	return nil
}

func TestPausedHolderIsFenced(t *testing.T) {
	protected, nodes := redistest.Start(t), addrs(servers(t, 5))
	l := locker(t, nodes, patient())
	first := start(t, "hold", protected.Addr, nodes)
	held := first.hear("holds")
	first.signal(syscall.SIGSTOP)

	// Nobody extends it now; we get it when its time to live is over.
	rdb := protected.Client()
	err := l.WithLock(t.Context(), "r", ttl, func(ctx context.Context, tok Token) error {
		if now := fmt.Sprint(int64(tok)); len(now) != len(held) || now <= held {
			t.Errorf("token %s after %s", now, held)
		}
		if _, err := write.Run(ctx, rdb, "r:guard", tok, []string{"r"}, "second"); err != nil {
			t.Errorf("the holder's write: %v", err)
		}
		first.proceed()
		first.signal(syscall.SIGCONT)
		if told := first.hear("fenced"); !strings.HasPrefix(told, "true") {
			t.Errorf("the first one's write: %s", told)
		}
		if told := first.hear("context"); told != ErrLost.Error() {
			t.Errorf("its context ended by %s", told)
		}
		if told := first.hear("lost"); !strings.HasPrefix(told, "true") {
			t.Errorf("its WithLock returned %s", told)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if v := rdb.Get(t.Context(), "r").Val(); v != "second" {
		t.Errorf("the protected key is %q", v)
	}
}

func TestProcessesLoseNoIncrement(t *testing.T) {
	const processes = 8
	protected, nodes := redistest.Start(t), addrs(servers(t, 5))
	began := time.Now()
	var all []*actor
	for range processes {
		all = append(all, start(t, "increment", protected.Addr, nodes))
	}
	for _, a := range all {
		a.hear("end")
	}
	if n, err := protected.Client().Get(t.Context(), "counter").Int(); err != nil || n != processes*increments {
		t.Errorf("counted %d, %v; want %d", n, err, processes*increments)
	}
	t.Logf("%d increments by %d processes in %v", processes*increments, processes, time.Since(began))
}
