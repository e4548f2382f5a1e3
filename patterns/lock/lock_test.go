package lock

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"herald/internal/testing/redistest"
)

var errWork = errors.New("the function failed")

func TestOneHolderAtATime(t *testing.T) {
	t.Parallel()
	sets := map[string][]string{
		"miniredis": {miniredis.RunT(t).Addr()}, "1": addrs(servers(t, 1)), "3": addrs(servers(t, 3)), "5": addrs(servers(t, 5)),
	}
	for name, addrs := range sets {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var inside, most atomic.Int32
			var last Token // guarded by the lock under test; the race detector watches
			var wg sync.WaitGroup
			for range 4 {
				l := locker(t, addrs, patient())
				wg.Go(func() {
					for range 10 {
						err := l.WithLock(t.Context(), "stock:7", ttl, func(_ context.Context, tok Token) error {
							most.Store(max(most.Load(), inside.Add(1)))
							defer inside.Add(-1)
							if tok <= last {
								return fmt.Errorf("token %d after %d", tok, last)
							}
							last = tok
							return nil
						})
						if err != nil {
							t.Error(err)
						}
					}
				})
			}
			wg.Wait()
			if most.Load() != 1 {
				t.Errorf("%d holders at once, want 1", most.Load())
			}
			if h := holders(t, locker(t, addrs, oneTry()), "stock:7"); !none(h) {
				t.Errorf("left behind: %q", h)
			}
		})
	}
}

func TestReturnsTheFunctionsErrorAndReleasesTheLock(t *testing.T) {
	t.Parallel()
	l := locker(t, addrs(servers(t, 1)), oneTry())
	err := l.WithLock(t.Context(), "r", ttl, func(context.Context, Token) error { return errWork })
	if !errors.Is(err, errWork) || errors.Is(err, ErrLost) {
		t.Errorf("got %v", err)
	}
	if !none(holders(t, l, "r")) {
		t.Error("still locked after an error")
	}
	func() {
		defer func() { _ = recover() }()
		_ = l.WithLock(t.Context(), "r", ttl, func(context.Context, Token) error { panic("work") })
	}()
	if !none(holders(t, l, "r")) {
		t.Error("still locked after a panic")
	}
}

func TestRefusesInvalidNamesAndDurations(t *testing.T) {
	t.Parallel()
	l := locker(t, []string{"127.0.0.1:1"}, oneTry())
	for _, resource := range []string{"", "a b", "a{b}", "a*", "ü", strings.Repeat("a", 201)} {
		if err := l.WithLock(t.Context(), resource, ttl, nil); err == nil || errors.Is(err, ErrUnavailable) {
			t.Errorf("%q: %v", resource, err)
		}
	}
	if err := l.WithLock(t.Context(), "r", 99*time.Millisecond, nil); err == nil || !strings.Contains(err.Error(), "ttl") {
		t.Errorf("ttl: %v", err)
	}
	if _, err := l.RunOncePerPeriod(t.Context(), "a:b", time.Hour, nil); err == nil || errors.Is(err, ErrUnavailable) {
		t.Errorf("job: %v", err)
	}
	if _, err := l.RunOncePerPeriod(t.Context(), "j", 1500*time.Millisecond, nil); err == nil || errors.Is(err, ErrUnavailable) {
		t.Errorf("period: %v", err)
	}
}

func TestRefusesALockThatIsTaken(t *testing.T) {
	t.Parallel()
	addrs := addrs(servers(t, 3))
	holder, o := locker(t, addrs, oneTry()), patient()
	o.Retries = 2
	other := locker(t, addrs, o)
	err := holder.WithLock(t.Context(), "r", ttl, func(context.Context, Token) error {
		before := holders(t, holder, "r")
		err := other.WithLock(t.Context(), "r", ttl, func(context.Context, Token) error {
			t.Error("two holders at once")
			return nil
		})
		if !errors.Is(err, ErrTaken) || errors.Is(err, ErrUnavailable) {
			t.Errorf("got %v", err)
		}
		if after := holders(t, holder, "r"); fmt.Sprint(after) != fmt.Sprint(before) || after[0] == "" {
			t.Errorf("the refused Locker changed the keys from %q to %q", before, after)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if s := other.Stats(); s.Taken != 1 || s.Acquired != 0 {
		t.Errorf("%+v", s)
	}
}

func TestNeedsAQuorumAndSurvivesTheLossOfAMinority(t *testing.T) {
	t.Parallel()
	all := servers(t, 5)
	o := oneTry()
	o.Budget = 500 * time.Millisecond // each lock waits for the stopped node four times
	l := locker(t, addrs(all), o)
	before := token(t, l, "r")
	all[0].Kill()
	all[1].Stop()
	if after := token(t, l, "r"); after <= before {
		t.Errorf("token %d after %d", after, before)
	}
	all[2].Kill()
	err := l.WithLock(t.Context(), "r", ttl, func(context.Context, Token) error {
		t.Error("called with two of five nodes")
		return nil
	})
	if !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrTaken) {
		t.Errorf("with 3 of 5 down: %v", err)
	}
	if _, err := l.RunOncePerPeriod(t.Context(), "job", time.Hour, func(context.Context, Token) error {
		t.Error("called with two of five nodes")
		return nil
	}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("RunOncePerPeriod with 3 of 5 down: %v", err)
	}
	if h := holders(t, locker(t, addrs(all[3:]), oneTry()), "r"); !none(h) {
		t.Errorf("the refused acquisition left %q", h)
	}
	all[2].Restart() // without its data
	if after := token(t, l, "r"); after <= before {
		t.Errorf("token %d after %d", after, before)
	}
	if s := l.Stats(); s.Acquired != 3 || s.Unavailable != 1 {
		t.Errorf("%+v", s)
	}
}

// Nodes that hang cost what the documentation says.
func TestHangingNodesDelayARefusalOnlyByTheBudget(t *testing.T) {
	t.Parallel()
	all := servers(t, 3)
	l := locker(t, addrs(all), Options{Retries: 2, RetryDelay: 10 * time.Millisecond})
	token(t, l, "r")
	all[0].Stop()
	all[1].Stop()
	began := time.Now()
	err := l.WithLock(t.Context(), "r", ttl, func(context.Context, Token) error { return nil })
	if !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	// 3 tries of 2 × 200 ms, times ten for a busy machine.
	if took := time.Since(began); took > 12*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestLockIsExtendedWhileTheFunctionRuns(t *testing.T) {
	t.Parallel()
	l := locker(t, addrs(servers(t, 3)), patient())
	const short = 3 * time.Second
	err := l.WithLock(t.Context(), "r", short, func(ctx context.Context, _ Token) error {
		before := holders(t, l, "r")
		await(t, "extensions", func() bool { return l.Stats().Extended >= 2 || ctx.Err() != nil })
		if fmt.Sprint(holders(t, l, "r")) != fmt.Sprint(before) {
			t.Error("the lock's value has changed")
		}
		return ctx.Err()
	})
	if err != nil {
		t.Error(err)
	}
}

// A lock survives an outage that is shorter than its validity.
func TestFailedExtensionIsRetried(t *testing.T) {
	t.Parallel()
	all := servers(t, 3)
	o := patient()
	o.ExtendWithin = 10 * time.Second // of 30 s: only the test extends it, not the goroutine
	l := locker(t, addrs(all), o)
	h, err := l.acquire(t.Context(), "r", 30*time.Second, 0)
	if err != nil {
		t.Fatal(err)
	}
	all[0].Stop()
	all[1].Stop()
	if ok, err := h.extend(t.Context()); ok || err == nil {
		t.Errorf("extended without a quorum: %v", err)
	}
	all[0].Continue()
	if ok, err := h.extend(t.Context()); !ok {
		t.Errorf("not extended by a quorum: %v", err)
	}
	all[1].Continue()
	h.startExtending()
	h.release()
}

func TestContextEndsWhenTheLockIsLost(t *testing.T) {
	t.Parallel()
	gone := func(t *testing.T, all []*redistest.Server) {
		all[0].Kill()
		all[1].Kill()
	}
	theirs := func(t *testing.T, all []*redistest.Server) {
		for _, s := range all {
			if err := s.Client().Set(t.Context(), lockKey("r"), "theirs", 0).Err(); err != nil {
				t.Error(err)
			}
		}
	}
	for name, c := range map[string]struct {
		fault func(*testing.T, []*redistest.Server)
		early bool // noticed at the first extension, before the validity ends
		left  string
	}{"quorum gone": {gone, false, "??"}, "taken by another process": {theirs, true, "theirstheirstheirs"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all := servers(t, 3)
			o := oneTry()
			o.ExtendWithin = 3 * time.Second
			l := locker(t, addrs(all), o)
			err := l.withLease(t.Context(), "r", 6*time.Second, 0, func(h *lease) error {
				c.fault(t, all)
				if cause := ended(t, h.ctx); !errors.Is(cause, ErrLost) {
					t.Errorf("ended by %v", cause)
				}
				<-h.stopped
				if early := time.Now().Before(h.mutex.Until()); early != c.early {
					t.Errorf("ended before its validity: %t", early)
				}
				return nil
			})
			if !errors.Is(err, ErrLost) {
				t.Errorf("got %v", err)
			}
			if s := l.Stats(); s.Lost != 1 || s.Unreleased != 1 {
				t.Errorf("%+v", s)
			}
			if left := strings.Join(holders(t, l, "r"), ""); left != c.left {
				t.Errorf("left behind: %q, want %q", left, c.left)
			}
		})
	}
}

// The caller's context ends the function, not the lock, which lasts until the function
// has returned.
func TestCancelledFunctionHoldsTheLockUntilItReturns(t *testing.T) {
	t.Parallel()
	l := locker(t, addrs(servers(t, 3)), oneTry())
	ctx, cancel := context.WithCancel(t.Context())
	err := l.WithLock(ctx, "r", 3*time.Second, func(ctx context.Context, _ Token) error {
		before := l.Stats().Extended
		cancel()
		<-ctx.Done()
		await(t, "an extension", func() bool { return l.Stats().Extended > before })
		return context.Cause(ctx)
	})
	if !errors.Is(err, context.Canceled) || errors.Is(err, ErrLost) {
		t.Errorf("got %v", err)
	}
	if !none(holders(t, l, "r")) {
		t.Error("the lock was not released")
	}
}

// redsync unlocks a half-acquired lock with the context that has just ended.
func TestCancelledAcquisitionLeavesNothing(t *testing.T) {
	t.Parallel()
	all := servers(t, 3)
	o := patient()
	o.Budget = 30 * time.Second
	l := locker(t, addrs(all), o)
	all[1].Stop()
	all[2].Stop()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		done <- l.WithLock(ctx, "r", 10*time.Minute, func(context.Context, Token) error { return errors.New("called") })
	}()
	one := locker(t, addrs(all[:1]), oneTry())
	await(t, "one of three nodes", func() bool { return !none(holders(t, one, "r")) })
	cancel()
	all[1].Kill()
	all[2].Kill()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if h := holders(t, one, "r"); !none(h) {
		t.Errorf("left behind: %q", h)
	}
}

func TestFailedReleaseIsLoggedAndExpires(t *testing.T) {
	t.Parallel()
	all := servers(t, 3)
	var log bytes.Buffer
	o := oneTry()
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	l := locker(t, addrs(all), o)
	err := l.WithLock(t.Context(), "r", ttl, func(context.Context, Token) error {
		all[0].Stop()
		all[1].Stop()
		return nil
	})
	if err != nil {
		t.Errorf("the function succeeded under the lock, but WithLock returned %v", err)
	}
	all[0].Continue()
	all[1].Continue()
	if s := l.Stats(); s.Unreleased != 1 || !strings.Contains(log.String(), "lock not released") || !strings.Contains(log.String(), "resource=r") {
		t.Errorf("%+v, logged %q", s, log.String())
	}
	for i, n := range l.nodes {
		if left := n.PTTL(t.Context(), lockKey("r")).Val(); left == -1 {
			t.Errorf("node %d keeps the key without expiry", i)
		}
	}
}

// The documented behaviour without a majority, with the default options.
func TestFailsClosedWithoutAMajority(t *testing.T) {
	t.Parallel()
	for name, crash := range map[string]func(*redistest.Server){"kill -9": (*redistest.Server).Kill, "SIGSTOP": (*redistest.Server).Stop} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all := servers(t, 3)
			l := locker(t, addrs(all), Options{})
			token(t, l, "r")
			crash(all[0])
			crash(all[1])
			work := func(context.Context, Token) error { t.Error("called without a quorum"); return nil }
			began := time.Now()
			if err := l.WithLock(t.Context(), "r", ttl, work); !errors.Is(err, ErrUnavailable) {
				t.Errorf("WithLock: %v", err)
			}
			tried := time.Since(began)
			began = time.Now()
			if ran, err := l.RunOncePerPeriod(t.Context(), "job", time.Hour, work); ran || !errors.Is(err, ErrUnavailable) {
				t.Errorf("RunOncePerPeriod: %v, %v", ran, err)
			}
			t.Logf("%s: WithLock refused after %v, RunOncePerPeriod after %v", name, tried.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
		})
	}
}
