package limiter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
)

// gated answers the script like a Redis whose windows never move, each call
// only when the test lets it.
type gated struct {
	redis.Scripter
	limit int
	next  chan error // a call's outcome; unbuffered

	mu    sync.Mutex
	held  int      // guarded by mu
	calls []string // guarded by mu; the costs of each call that began
}

func (g *gated) EvalSha(ctx context.Context, _ string, _ []string, args ...any) *redis.Cmd {
	costs := args[2].(string)
	g.mu.Lock()
	g.calls = append(g.calls, costs)
	g.mu.Unlock()
	cmd := redis.NewCmd(ctx)
	select {
	case err := <-g.next:
		if err != nil {
			cmd.SetErr(err)
			return cmd
		}
	case <-ctx.Done():
		cmd.SetErr(ctx.Err())
		return cmd
	}
	cmd.SetVal(g.answer(costs))
	return cmd
}

func (g *gated) answer(costs string) []any {
	g.mu.Lock()
	defer g.mu.Unlock()
	reply := []any{start.UnixMicro()}
	for text := range strings.SplitSeq(costs, ",") {
		n, _ := strconv.Atoi(text)
		wait := int64(0)
		if g.held+n > g.limit {
			wait = 1
		} else {
			g.held += n
		}
		reply = append(reply, wait, int64(g.limit-g.held), int64(1))
	}
	return reply
}

func (g *gated) seen() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.calls)
}

func newGated(limit int, o Options) (*Limiter, *gated) {
	g := &gated{limit: limit, next: make(chan error)}
	l := New(nil, "test", Limit{N: limit, Per: time.Minute}, o)
	l.window.rdb = g
	return l, g
}

// arrive starts one Allow and returns when it waits, for Redis or in line.
func arrive(ctx context.Context, l *Limiter, n int) <-chan Decision {
	done := make(chan Decision, 1)
	go func() { done <- l.Allow(ctx, "a", n) }()
	synctest.Wait()
	return done
}

func wantCalls(t *testing.T, g *gated, want ...string) {
	t.Helper()
	if got := g.seen(); !slices.Equal(got, want) {
		t.Fatalf("calls = %q, want %q", got, want)
	}
}

func wantNoLine(t *testing.T, l *Limiter) {
	t.Helper()
	l.lines.mu.Lock()
	defer l.lines.mu.Unlock()
	if len(l.lines.busy) != 0 {
		t.Fatalf("lines left: %v", l.lines.busy)
	}
}

func TestThoseWhoWaitGoTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, g := newGated(10, Options{})
		first := arrive(t.Context(), l, 1)
		var rest []<-chan Decision
		for _, n := range []int{2, 9, 3, 4, 5} {
			rest = append(rest, arrive(t.Context(), l, n))
		}
		wantCalls(t, g, "1")
		g.next <- nil
		if d := <-first; !d.Allowed || d.Remaining != 9 {
			t.Fatalf("first: %+v", d)
		}
		synctest.Wait()
		wantCalls(t, g, "1", "2,9,3,4,5")
		late := arrive(t.Context(), l, 6)
		g.next <- nil
		for i, want := range []struct {
			allowed   bool
			remaining int
		}{{true, 7}, {false, 7}, {true, 4}, {true, 0}, {false, 0}} {
			if d := <-rest[i]; d.Allowed != want.allowed || d.Remaining != want.remaining || d.FailedOpen {
				t.Fatalf("number %d of the batch: %+v", i, d)
			}
		}
		synctest.Wait()
		wantCalls(t, g, "1", "2,9,3,4,5", "6")
		g.next <- nil
		if d := <-late; d.Allowed {
			t.Fatalf("late: %+v", d)
		}
		synctest.Wait()
		wantNoLine(t, l)
		if s := l.Stats(); s != (Stats{Allowed: 4, Denied: 3}) {
			t.Fatalf("stats %+v", s)
		}
	})
}

// A subject's line keeps no other subject waiting.
func TestSubjectsDoNotWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, g := newGated(10, Options{})
		a := arrive(t.Context(), l, 1)
		done := make(chan Decision, 1)
		go func() { done <- l.Allow(t.Context(), "b", 2) }()
		synctest.Wait()
		wantCalls(t, g, "1", "2")
		g.next <- nil
		g.next <- nil
		<-a
		<-done
	})
}

func TestBatchesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, g := newGated(10000, Options{})
		var all []<-chan Decision
		for range 1 + maxBatch + 3 {
			all = append(all, arrive(t.Context(), l, 1))
		}
		for range 3 {
			g.next <- nil
			synctest.Wait()
		}
		for _, c := range all {
			if d := <-c; !d.Allowed || d.FailedOpen {
				t.Fatalf("%+v", d)
			}
		}
		wantCalls(t, g, "1", strings.Repeat("1,", maxBatch-1)+"1", "1,1,1")
	})
}

func TestLeavingTheLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, g := newGated(100, Options{})
		first := arrive(t.Context(), l, 1)
		var waiting [4]<-chan Decision
		var cancel [4]context.CancelCauseFunc
		for i := range waiting {
			ctx, c := context.WithCancelCause(t.Context())
			waiting[i], cancel[i] = arrive(ctx, l, 10+i), c
		}
		cancel[1](errors.New("hung up"))
		if d := <-waiting[1]; !d.FailedOpen || !d.Allowed {
			t.Fatalf("who left: %+v", d)
		}
		g.next <- nil
		<-first
		synctest.Wait()
		wantCalls(t, g, "1", "10,12,13") // who left before its turn was not asked for
		cancel[0](nil)                   // in the batch
		if d := <-waiting[0]; !d.FailedOpen {
			t.Fatalf("who left the batch: %+v", d)
		}
		cancel[3](nil) // leads the batch
		g.next <- nil
		for _, i := range []int{2, 3} {
			if d := <-waiting[i]; d.FailedOpen || !d.Allowed {
				t.Fatalf("number %d, disturbed by others leaving: %+v", i, d)
			}
		}
		synctest.Wait()
		wantNoLine(t, l)
		if g.held != 1+10+12+13 {
			t.Fatalf("held %d", g.held)
		}
	})
}

// Nobody outwaits its budget, nobody fails open before it is spent, and a line of
// people who all left ends.
func TestBudgetInLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, g := newGated(100, Options{Budget: 100 * time.Millisecond})
		began := time.Now()
		type timed struct {
			d  Decision
			at time.Duration
		}
		done := make([]chan timed, 5)
		for i := range done {
			done[i] = make(chan timed, 1)
			arrived := time.Since(began)
			go func() {
				d := l.Allow(context.Background(), "a", 1)
				done[i] <- timed{d, time.Since(began) - arrived}
			}()
			time.Sleep(30 * time.Millisecond)
		}
		for i, c := range done {
			if got := <-c; !got.d.FailedOpen || got.at != 100*time.Millisecond {
				t.Fatalf("number %d: %+v after %v", i, got.d, got.at)
			}
		}
		synctest.Wait()
		wantNoLine(t, l)
		// 0 asks until 100 ms; by then 1, 2 and 3 wait, 3 leads until its 190 ms; then 4 until 220 ms.
		wantCalls(t, g, "1", "1,1,1", "1")
		if s := l.Stats(); s != (Stats{FailedOpen: 5}) {
			t.Fatalf("stats %+v", s)
		}
	})
}

func TestErrorForAllOfABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, g := newGated(100, Options{})
		first := arrive(t.Context(), l, 1)
		a, b := arrive(t.Context(), l, 1), arrive(t.Context(), l, 101)
		g.next <- nil
		<-first
		g.next <- errors.New("LOADING")
		if d := <-a; !d.Allowed || !d.FailedOpen {
			t.Fatalf("%+v", d)
		}
		if d := <-b; d.Allowed || d.FailedOpen || !d.TooCostly || d.RetryAfter != time.Minute {
			t.Fatalf("over the limit itself: %+v", d)
		}
	})
}

// A client that panics takes only its own caller down.
func TestPanicPassesTheLead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, g := newGated(100, Options{})
		l.window.rdb = panicOnce{Scripter: g, once: new(sync.Once), next: g.next}
		panicked := make(chan any, 1)
		go func() {
			defer func() { panicked <- recover() }()
			l.Allow(t.Context(), "a", 1)
		}()
		synctest.Wait()
		second := arrive(t.Context(), l, 2)
		g.next <- nil
		if <-panicked == nil {
			t.Fatal("did not panic")
		}
		g.next <- nil
		if d := <-second; !d.Allowed || d.FailedOpen {
			t.Fatalf("%+v", d)
		}
		synctest.Wait()
		wantNoLine(t, l)
	})
}

type panicOnce struct {
	redis.Scripter
	once *sync.Once
	next chan error
}

func (p panicOnce) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	p.once.Do(func() { <-p.next; panic("client") })
	return p.Scripter.EvalSha(ctx, sha, keys, args...)
}

func TestWarnsOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		l, g := newGated(100, Options{Log: slog.New(slog.NewTextHandler(&out, nil))})
		for range 25 { // 100 ms apart
			d := arrive(t.Context(), l, 1)
			g.next <- errors.New("connection refused")
			<-d
			time.Sleep(100 * time.Millisecond)
		}
		if n := strings.Count(out.String(), "\n"); n != 3 {
			t.Fatalf("%d warnings in 2.5 s:\n%s", n, out.String())
		}
		if !strings.Contains(out.String(), "scope=test") || !strings.Contains(out.String(), "connection refused") {
			t.Fatal(out.String())
		}
	})
}

func TestShortReplyFailsOpen(t *testing.T) {
	l := New(nil, "test", Limit{N: 1, Per: time.Minute}, Options{})
	l.window.rdb = shortReply{}
	if d := l.Allow(t.Context(), "a", 1); !d.FailedOpen {
		t.Fatalf("%+v", d)
	}
}

type shortReply struct{ redis.Scripter }

func (shortReply) EvalSha(ctx context.Context, _ string, _ []string, _ ...any) *redis.Cmd {
	cmd := redis.NewCmd(ctx)
	cmd.SetVal([]any{int64(1), int64(0)})
	return cmd
}

func TestNewRefuses(t *testing.T) {
	for _, c := range []struct {
		scope string
		limit Limit
	}{
		{"", Limit{}}, {"a:b", Limit{}}, {`a"b`, Limit{}}, {strings.Repeat("a", 65), Limit{}},
		{"a", Limit{N: -1, Per: time.Minute}}, {"a", Limit{N: 1}}, {"a", Limit{Per: time.Minute}},
		{"a", Limit{N: MaxN + 1, Per: time.Minute}}, {"a", Limit{N: 1, Per: 25 * time.Hour}},
		{"a", Limit{N: 1, Per: time.Second + time.Microsecond}},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			New(nil, c.scope, c.limit, Options{})
		})
	}
}
