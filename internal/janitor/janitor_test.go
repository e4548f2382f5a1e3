package janitor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"herald/internal/testing/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// always is an OncePerDay that always calls fn, and sends its error to results.
func always(results chan<- error) OncePerDay {
	return func(ctx context.Context, fn func(context.Context) error) (bool, error) {
		err := fn(ctx)
		results <- err
		return true, err
	}
}

func TestWalksEveryUserInSmallSteps(t *testing.T) {
	rdb := redistest.Start(t).Client()
	const users = 1000
	for i := range users {
		for _, key := range []string{"log", "state"} {
			rdb.Set(t.Context(), fmt.Sprintf("user:{%d}:%s", i, key), "", 0)
		}
	}
	for _, key := range []string{"user:x:log", "other:{y}:log", "session:z", "user:{w}"} {
		rdb.Set(t.Context(), key, "", 0)
	}
	seen, calls := map[string]int{}, 0
	chore := func(_ context.Context, ids []string) (Removed, error) {
		if calls++; len(ids) > choreUsers {
			t.Errorf("%d users at once", len(ids))
		}
		r := Removed{"things": 0}
		for _, id := range ids {
			if seen[id]++; seen[id] == 1 {
				r["things"]++
			}
		}
		return r, nil
	}
	var log bytes.Buffer
	results := make(chan error, 1)
	j := New(rdb, always(results), []Chore{chore}, Options{Pause: time.Nanosecond, Budget: time.Minute, Log: slog.New(slog.NewTextHandler(&log, nil))})
	j.try(t.Context())
	if err := <-results; err != nil {
		t.Fatal(err)
	}
	if len(seen) != users || calls < users/choreUsers {
		t.Errorf("%d users in %d calls", len(seen), calls)
	}
	if s := j.Stats(); s.Runs != 1 || s.Failures != 0 || s.Removed["things"] != users {
		t.Errorf("%+v", s)
	}
	if lines := strings.Count(log.String(), "\n"); lines != 1 || !strings.Contains(log.String(), "things=1000") {
		t.Errorf("logged %s", &log)
	}
}

func TestRetriesAtTheNextCheck(t *testing.T) {
	rdb := redistest.Start(t).Client()
	rdb.Set(t.Context(), "user:{42}:log", "", 0)
	failed := errors.New("chore failed")
	calls := 0
	chore := func(context.Context, []string) (Removed, error) {
		if calls++; calls < 3 {
			return Removed{"things": 1}, failed
		}
		return Removed{"things": 10}, nil
	}
	results := make(chan error)
	j := New(rdb, always(results), []Chore{chore}, Options{Check: time.Millisecond, Budget: time.Minute})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); j.Run(ctx) }()
	for i, want := range []error{failed, failed, nil} {
		if err := <-results; !errors.Is(err, want) {
			t.Errorf("try %d: %v", i, err)
		}
	}
	cancel()
	for ended := false; !ended; {
		select {
		case <-results:
		case <-done:
			ended = true
		}
	}
	if s := j.Stats(); s.Runs < 1 || s.Failures != 2 || s.Removed["things"] < 12 {
		t.Errorf("%+v", s)
	}
}

// A janitor that has lost its lock stops between two steps.
func TestStopsWhenItsLockIsLost(t *testing.T) {
	rdb := redistest.Start(t).Client()
	for i := range 5000 {
		rdb.Set(t.Context(), fmt.Sprintf("user:{%d}:log", i), "", 0)
	}
	lost := errors.New("lost")
	ctx, cancel := context.WithCancelCause(t.Context())
	calls := 0
	chore := func(context.Context, []string) (Removed, error) { calls++; cancel(lost); return nil, nil }
	j := New(rdb, nil, []Chore{chore}, Options{Step: 10, Budget: time.Minute, Pause: time.Hour})
	if err := j.clean(ctx); !errors.Is(err, lost) || calls != 1 {
		t.Errorf("%v after %d calls", err, calls)
	}
}

func TestIsDueAfterTheTimeOfDay(t *testing.T) {
	at := 3*time.Hour + 30*time.Minute
	for clock, want := range map[string]bool{
		"2026-11-27T03:29:59Z": false, "2026-11-27T03:30:00Z": true, "2026-11-27T23:59:59Z": true,
		"2026-11-28T00:00:00Z": false, "2026-11-27T05:00:00+02:00": false,
	} {
		now, err := time.Parse(time.RFC3339, clock)
		if err != nil || Due(now, at) != want {
			t.Errorf("%s: %t, %v", clock, !want, err)
		}
	}
}
