package limiter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
)

// silent never answers a script.
type silent struct{ redis.Scripter }

func (silent) EvalSha(ctx context.Context, _ string, _ []string, _ ...any) *redis.Cmd {
	<-ctx.Done()
	return failed(ctx, ctx.Err())
}

// failing answers every script with an error.
type failing struct {
	redis.Scripter
	err error
}

func (f failing) EvalSha(ctx context.Context, _ string, _ []string, _ ...any) *redis.Cmd {
	return failed(ctx, f.err)
}

func failed(ctx context.Context, err error) *redis.Cmd {
	cmd := redis.NewCmd(ctx)
	cmd.SetErr(err)
	return cmd
}

var ofHundred = Limit{N: 100, Per: time.Minute}

func TestFailsOpenWhenTheBudgetIsSpent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(silent{}, "test", ofHundred, Options{})
		began := time.Now()
		if d := l.Allow(context.Background(), "a", 1); !d.FailedOpen || time.Since(began) != 100*time.Millisecond {
			t.Errorf("%+v after %v, want to fail open after 100ms", d, time.Since(began))
		}
		if s := l.Stats(); s != (Stats{FailedOpen: 1}) {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestFailsOpenWhenItsCallerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(silent{}, "test", ofHundred, Options{})
		ctx, cancel := context.WithCancel(t.Context())
		began := time.Now()
		time.AfterFunc(time.Millisecond, cancel)
		if d := l.Allow(ctx, "a", 1); !d.Allowed || !d.FailedOpen || time.Since(began) != time.Millisecond {
			t.Errorf("%+v after %v", d, time.Since(began))
		}
	})
}

func TestErrorFailsOpenUpToTheLimitItself(t *testing.T) {
	l := New(failing{err: errors.New("LOADING")}, "test", ofHundred, Options{})
	if d := l.Allow(t.Context(), "a", 1); !d.Allowed || !d.FailedOpen {
		t.Errorf("%+v", d)
	}
	if d := l.Allow(t.Context(), "a", 101); d.Allowed || d.FailedOpen || !d.TooCostly || d.RetryAfter != time.Minute {
		t.Errorf("over the limit itself: %+v", d)
	}
}

func TestWarnsOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		l := New(failing{err: errors.New("connection refused")}, "test", ofHundred, Options{Log: slog.New(slog.NewTextHandler(&out, nil))})
		for range 25 { // 100 ms apart
			l.Allow(t.Context(), "a", 1)
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
	l := New(shortReply{}, "test", Limit{N: 1, Per: time.Minute}, Options{})
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
