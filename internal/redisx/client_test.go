package redisx

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"herald/internal/testing/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// gate is a hook that holds scripts back until open is closed, and counts them.
type gate struct {
	arrived chan int // the size of each pipeline, 1 for a command by itself
	open    chan struct{}
	panics  bool
}

func (*gate) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (g *gate) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() == "evalsha" {
			g.arrived <- 1
			<-g.open
		}
		return next(ctx, cmd)
	}
}

func (g *gate) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if cmds[0].Name() != "evalsha" { // a new connection's
			return next(ctx, cmds)
		}
		g.arrived <- len(cmds)
		if g.panics {
			panic("gate")
		}
		return next(ctx, cmds)
	}
}

var echo = redis.NewScript(`
if ARGV[1] == 'bad' then return redis.error_reply('BAD argument') end
return ARGV[1] .. KEYS[1]`)

// crowded returns a client on a real Redis with maxAlone calls in flight; what
// is called further has to queue until open is called.
func crowded(t *testing.T) (c *Client, g *gate, open func()) {
	rdb := redis.NewClient(Configure(&redis.Options{Addr: redistest.Start(t).Addr}, 0))
	t.Cleanup(func() { _ = rdb.Close() })
	if err := echo.Load(t.Context(), rdb).Err(); err != nil {
		t.Fatal(err)
	}
	g = &gate{arrived: make(chan int, 1000), open: make(chan struct{})}
	rdb.AddHook(g)
	c = New(rdb)
	var alone sync.WaitGroup
	for i := range maxAlone {
		alone.Go(func() { say(t.Context(), t, c, fmt.Sprint("alone", i)) })
	}
	for range maxAlone {
		if n := <-g.arrived; n != 1 {
			t.Errorf("%d together, want each by itself", n)
		}
	}
	once := sync.OnceFunc(func() { close(g.open); alone.Wait() })
	t.Cleanup(once)
	return c, g, once
}

func say(ctx context.Context, t *testing.T, c *Client, text string) {
	got, err := echo.EvalSha(ctx, c, []string{"!"}, text).Text()
	if err != nil || got != text+"!" {
		t.Errorf("%s: got %q, %v", text, got, err)
	}
}

// line reports callers that wait, in flight or queued: only then is the context's Done
// channel read.
type line chan struct{}

type arriving struct {
	context.Context
	arrived func() // once
}

func (a arriving) Done() <-chan struct{} {
	a.arrived()
	return a.Context.Done()
}

// with returns a context for one caller.
func (l line) with(ctx context.Context) context.Context {
	return arriving{ctx, sync.OnceFunc(func() { l <- struct{}{} })}
}

// await waits until n callers wait.
func (l line) await(n int) {
	for range n {
		<-l
	}
}

func TestTogether(t *testing.T) {
	c, g, open := crowded(t)
	const callers = maxScripts + 10
	l := make(line)
	var work sync.WaitGroup
	for i := range callers {
		work.Go(func() {
			if i == 7 {
				if err := echo.EvalSha(l.with(t.Context()), c, []string{"!"}, "bad").Err(); !redis.HasErrorPrefix(err, "BAD") {
					t.Errorf("got %v", err)
				}
				return
			}
			say(l.with(t.Context()), t, c, fmt.Sprint(i))
		})
	}
	l.await(callers)
	open()
	work.Wait()
	if first, second := <-g.arrived, <-g.arrived; first != maxScripts || second != callers-maxScripts {
		t.Errorf("batches of %d and %d", first, second)
	}
	say(t.Context(), t, c, "later") // by itself again
	if n := <-g.arrived; n != 1 {
		t.Errorf("%d together", n)
	}
}

// TestNotLoaded: each caller of a script that Redis does not have gets NOSCRIPT, and Run
// sends the source.
func TestNotLoaded(t *testing.T) {
	c, _, open := crowded(t)
	script := redis.NewScript(`return ARGV[1] .. 'new'`)
	l := make(line)
	var work sync.WaitGroup
	for i := range 10 {
		work.Go(func() {
			if got, err := script.Run(l.with(t.Context()), c, nil, i).Text(); err != nil || got != fmt.Sprint(i, "new") {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	l.await(10)
	open()
	work.Wait()
}

// TestGivesUp: a queued script is withdrawn when its context ends, and is not sent.
func TestGivesUp(t *testing.T) {
	c, g, open := crowded(t)
	ctx, cancel := context.WithCancel(t.Context())
	l := make(line)
	var work, gone sync.WaitGroup
	gone.Go(func() {
		if err := echo.EvalSha(l.with(ctx), c, []string{"!"}, "impatient").Err(); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
	work.Go(func() { say(l.with(t.Context()), t, c, "patient") })
	l.await(2)
	cancel()
	gone.Wait()
	open()
	work.Wait()
	if n := <-g.arrived; n != 1 {
		t.Errorf("%d sent together", n)
	}
}

// TestEachItsOwnTime: while Redis does not answer, each caller returns at its own deadline,
// whatever batch its script is in.
func TestEachItsOwnTime(t *testing.T) {
	srv := redistest.Start(t)
	rdb := redis.NewClient(Configure(&redis.Options{Addr: srv.Addr, ReadTimeout: time.Minute}, 0))
	t.Cleanup(func() { _ = rdb.Close() })
	if err := echo.Load(t.Context(), rdb).Err(); err != nil {
		t.Fatal(err)
	}
	c := New(rdb)
	srv.Stop()
	l := make(line)
	var work, short sync.WaitGroup
	long, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for i := range maxAlone + 5 {
		work.Go(func() {
			if got, err := echo.EvalSha(l.with(long), c, []string{"!"}, i).Text(); err != nil || got != fmt.Sprint(i, "!") {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	l.await(maxAlone + 5)
	for range 5 {
		short.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			if err := echo.EvalSha(ctx, c, []string{"!"}, "short").Err(); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		})
	}
	short.Wait()
	srv.Continue()
	work.Wait()
}

// TestPanic: if the client panics, each caller of the batch gets an error, and later calls
// work.
func TestPanic(t *testing.T) {
	c, g, open := crowded(t)
	g.panics = true
	l := make(line)
	var work sync.WaitGroup
	for range 3 {
		work.Go(func() {
			if err := echo.EvalSha(l.with(t.Context()), c, []string{"!"}, "x").Err(); err == nil || !strings.Contains(err.Error(), "panicked") {
				t.Errorf("got %v", err)
			}
		})
	}
	l.await(3)
	open()
	work.Wait()
	<-g.arrived
	say(t.Context(), t, c, "later")
}
