package lock

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"herald/internal/testing/redistest"
)

const day = 24 * time.Hour

// run runs a daily job that counts its calls and returns fail.
func run(t *testing.T, l *Locker, calls *atomic.Int32, fail error) (bool, error) {
	t.Helper()
	return l.RunOncePerPeriod(t.Context(), "job", day, func(context.Context, Token) error { calls.Add(1); return fail })
}

func markers(t *testing.T, l *Locker) (n int) {
	t.Helper()
	for _, node := range l.nodes {
		keys, err := node.Keys(t.Context(), "cron:*").Result()
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range keys {
			if left := node.PTTL(t.Context(), k).Val(); left <= day || left > 2*day {
				t.Errorf("%s lives for %v", k, left)
			}
			if _, err := time.Parse("cron:job:2006-01-02", k); err != nil {
				t.Error(err)
			}
		}
		n += len(keys)
	}
	return n
}

func TestJobRunsOnceOnManyNodes(t *testing.T) {
	t.Parallel()
	addrs := addrs(servers(t, 3))
	var calls, ran atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		l := locker(t, addrs, patient())
		wg.Go(func() {
			for range 5 {
				ok, err := run(t, l, &calls, nil)
				if err != nil {
					t.Error(err)
				}
				if ok {
					ran.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if calls.Load() != 1 || ran.Load() != 1 {
		t.Errorf("called %d times, reported %d times; want 1", calls.Load(), ran.Load())
	}
	if n := markers(t, locker(t, addrs, oneTry())); n != 3 {
		t.Errorf("%d markers", n)
	}
}

func TestFailedJobIsRepeatedUntilItSucceeds(t *testing.T) {
	t.Parallel()
	l := locker(t, addrs(servers(t, 3)), patient())
	var calls atomic.Int32
	if ran, err := run(t, l, &calls, errWork); !ran || !errors.Is(err, errWork) {
		t.Errorf("%t, %v", ran, err)
	}
	if n := markers(t, l); n != 0 {
		t.Errorf("%d markers after a failure", n)
	}
	if ran, err := run(t, l, &calls, nil); !ran || err != nil {
		t.Errorf("%t, %v", ran, err)
	}
	if ran, err := run(t, l, &calls, nil); ran || err != nil {
		t.Errorf("completed, but run again: %t, %v", ran, err)
	}
	if calls.Load() != 2 {
		t.Errorf("%d calls", calls.Load())
	}
}

// A slow node whose lock has passed on stores no marker. Its late success doesn't hide
// the other node's failure, and it reports that the job may have run twice.
func TestSlowNodeDoesNotMarkTheJobAsCompleted(t *testing.T) {
	t.Parallel()
	addrs := addrs(servers(t, 3))
	slow, other := locker(t, addrs, patient()), locker(t, addrs, patient())
	var calls atomic.Int32
	ran, err := slow.RunOncePerPeriod(t.Context(), "job", day, func(context.Context, Token) error {
		for _, n := range slow.nodes { // as if the node had been paused beyond its TTL
			if err := n.Del(t.Context(), lockKey("cron:job")).Err(); err != nil {
				t.Error(err)
			}
		}
		if ran, err := run(t, other, &calls, errWork); !ran || !errors.Is(err, errWork) {
			t.Errorf("the other node: %t, %v", ran, err)
		}
		return nil
	})
	if !ran || !errors.Is(err, ErrLost) {
		t.Errorf("the slow node: %t, %v", ran, err)
	}
	if n := markers(t, slow); n != 0 {
		t.Errorf("%d markers", n)
	}
	if ran, err := run(t, other, &calls, nil); !ran || err != nil {
		t.Errorf("the next try: %t, %v", ran, err)
	}
	if ran, err := run(t, slow, &calls, nil); ran || err != nil {
		t.Errorf("completed, but run again: %t, %v", ran, err)
	}
}

func TestJobSurvivesTheLossOfAMinority(t *testing.T) {
	t.Parallel()
	all := servers(t, 3)
	l := locker(t, addrs(all), patient())
	var calls atomic.Int32
	all[0].Kill()
	if ran, err := run(t, l, &calls, nil); !ran || err != nil {
		t.Errorf("with one down: %t, %v", ran, err)
	}
	all[0].Restart() // without its data
	all[1].Kill()    // had the marker
	if ran, err := run(t, l, &calls, nil); ran || err != nil {
		t.Errorf("with another node down: %t, %v", ran, err)
	}
	all[2].Kill()
	if ran, err := run(t, l, &calls, nil); ran || !errors.Is(err, ErrUnavailable) {
		t.Errorf("without a quorum: %t, %v", ran, err)
	}
	if calls.Load() != 1 {
		t.Errorf("%d calls", calls.Load())
	}
}

// A job that succeeds although its context has ended is marked as completed.
func TestJobCompletedAfterCancellationIsMarked(t *testing.T) {
	t.Parallel()
	l := locker(t, addrs(servers(t, 1)), patient())
	ctx, cancel := context.WithCancel(t.Context())
	ran, err := l.RunOncePerPeriod(ctx, "job", day, func(context.Context, Token) error { cancel(); return nil })
	if !ran || err != nil || markers(t, l) != 1 {
		t.Errorf("%t, %v, %d markers", ran, err, markers(t, l))
	}
}

func TestDaysAreCountedByRedisClocks(t *testing.T) {
	t.Parallel()
	srv, clock := redistest.StartWithClock(t)
	l := locker(t, []string{srv.Addr}, patient())
	var calls atomic.Int32
	for _, step := range []struct {
		ahead time.Duration
		want  int32
	}{{0, 1}, {day, 2}, {day, 2}, {0, 2}, {2 * day, 3}} {
		clock.Set(step.ahead)
		if _, err := run(t, l, &calls, nil); err != nil || calls.Load() != step.want {
			t.Errorf("%v ahead: %d calls, want %d; %v", step.ahead, calls.Load(), step.want, err)
		}
	}
}

func TestPeriodsAreNamedByTheirBeginning(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 31, 23, 59, 59, 999, time.FixedZone("", 3600))
	for period, want := range map[time.Duration]string{
		day: "2026-03-31", time.Hour: "20260331T220000Z", 7 * day: "2026-03-30", 90 * time.Second: "20260331T225830Z",
	} {
		if got := date(now, period); got != want {
			t.Errorf("%v: %s, want %s", period, got, want)
		}
	}
}
