package idempotent

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"herald/internal/redisx"
	"herald/internal/testing/redistest"
)

// patience is a budget that tolerates a busy machine.
const patience = 30 * time.Second

// onBoth runs a test on miniredis and on a redis-server.
func onBoth(t *testing.T, f func(t *testing.T, rdb *redis.Client)) {
	t.Run("miniredis", func(t *testing.T) {
		t.Parallel()
		rdb := redis.NewClient(redisx.Configure(&redis.Options{Addr: miniredis.RunT(t).Addr()}, 0))
		t.Cleanup(func() { _ = rdb.Close() })
		f(t, rdb)
	})
	t.Run("redis", func(t *testing.T) { t.Parallel(); f(t, redistest.Start(t).Client()) })
}

func returns(result string) Work {
	return func(context.Context, Attempt) ([]byte, error) { return []byte(result), nil }
}

// never is work that must not start.
func never(t *testing.T) Work {
	return func(context.Context, Attempt) ([]byte, error) {
		t.Error("the work was started")
		return nil, nil
	}
}

func TestWorkIsDoneOncePerKey(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb *redis.Client) {
		p := New(rdb, "a", Options{Budget: patience})
		result, replayed, err := p.Do(t.Context(), "k", "print", returns("one"))
		if string(result) != "one" || replayed || err != nil {
			t.Fatalf("first: %q, %t, %v", result, replayed, err)
		}
		if result, replayed, err = p.Do(t.Context(), "k", "print", never(t)); string(result) != "one" || !replayed || err != nil {
			t.Errorf("again: %q, %t, %v", result, replayed, err)
		}
		if _, _, err := p.Do(t.Context(), "k", "another", never(t)); !errors.Is(err, ErrMismatch) {
			t.Errorf("another request: %v", err)
		}
		if _, replayed, err := p.Do(t.Context(), "k2", "print", returns("")); replayed || err != nil {
			t.Errorf("another key: %t, %v", replayed, err)
		}
		if result, replayed, err := p.Do(t.Context(), "k2", "print", never(t)); len(result) != 0 || !replayed || err != nil {
			t.Errorf("an empty result: %q, %t, %v", result, replayed, err)
		}
		if _, replayed, err := New(rdb, "b", Options{}).Do(t.Context(), "k", "print", returns("two")); replayed || err != nil {
			t.Errorf("another namespace: %t, %v", replayed, err)
		}
		if ttl := rdb.PTTL(t.Context(), recordKey("a", "k")).Val(); ttl <= 6*24*time.Hour || ttl > 7*24*time.Hour {
			t.Errorf("the record lives for %v", ttl)
		}
	})
}

func TestFailedWorkFreesTheKey(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb *redis.Client) {
		p := New(rdb, "a", Options{Budget: patience})
		failure := errors.New("no")
		var first, second int64
		_, _, err := p.Do(t.Context(), "k", "print", func(_ context.Context, a Attempt) ([]byte, error) {
			first = a.Token
			return nil, failure
		})
		if !errors.Is(err, failure) {
			t.Fatalf("got %v", err)
		}
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic was swallowed")
				}
			}()
			_, _, _ = p.Do(t.Context(), "k", "print", func(context.Context, Attempt) ([]byte, error) { panic("no") })
		}()
		if _, _, err := p.Do(t.Context(), "k", "another", never(t)); !errors.Is(err, ErrMismatch) {
			t.Errorf("another request after a failure: %v", err)
		}
		gone, cancel := context.WithCancel(t.Context())
		_, _, err = p.Do(gone, "k", "print", func(ctx context.Context, _ Attempt) ([]byte, error) {
			cancel()
			<-ctx.Done()
			return nil, ctx.Err()
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the caller has cancelled: %v", err)
		}
		result, replayed, err := p.Do(t.Context(), "k", "print", func(_ context.Context, a Attempt) ([]byte, error) {
			second = a.Token
			return []byte("yes"), nil
		})
		if string(result) != "yes" || replayed || err != nil || second <= first {
			t.Errorf("after failures: %q, %t, %v; token %d after %d", result, replayed, err, second, first)
		}
	})
}

// The result is recorded even if the caller has cancelled meanwhile.
func TestResultOfACancelledCallerIsRecorded(t *testing.T) {
	t.Parallel()
	p := New(redistest.Start(t).Client(), "a", Options{Budget: patience})
	ctx, cancel := context.WithCancel(t.Context())
	if _, _, err := p.Do(ctx, "k", "print", func(context.Context, Attempt) ([]byte, error) { cancel(); return []byte("x"), nil }); err != nil {
		t.Fatal(err)
	}
	if result, replayed, err := p.Do(t.Context(), "k", "print", never(t)); string(result) != "x" || !replayed || err != nil {
		t.Errorf("%q, %t, %v", result, replayed, err)
	}
}

// Work that takes longer than several leases keeps its key.
func TestLeaseIsExtendedWhileTheWorkRuns(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb *redis.Client) {
		m := New(rdb, "a", Options{Lease: 300 * time.Millisecond, Budget: patience})
		_, _, err := m.Do(t.Context(), "k", "print", func(ctx context.Context, _ Attempt) ([]byte, error) {
			var running *RunningError
			for began := time.Now(); time.Since(began) < time.Second; time.Sleep(10 * time.Millisecond) {
				if _, _, err := m.Do(ctx, "k", "print", never(t)); !errors.As(err, &running) {
					t.Errorf("while it works: %v", err)
				}
			}
			return nil, ctx.Err()
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// Of many concurrent callers one does the work. The others get a RunningError, retry and
// get the result.
func TestConcurrentCallersDoTheWorkOnce(t *testing.T) {
	t.Parallel()
	p := New(redistest.Start(t).Client(), "a", Options{Budget: patience})
	var worked atomic.Int32
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			for {
				result, _, err := p.Do(t.Context(), "k", "print", func(context.Context, Attempt) ([]byte, error) {
					worked.Add(1)
					time.Sleep(20 * time.Millisecond)
					return []byte("x"), nil
				})
				var running *RunningError
				if errors.As(err, &running) {
					time.Sleep(time.Millisecond)
					continue
				}
				if string(result) != "x" || err != nil {
					t.Errorf("%q, %v", result, err)
				}
				return
			}
		})
	}
	all.Wait()
	if n := worked.Load(); n != 1 {
		t.Errorf("worked %d times", n)
	}
}

func TestOutageIsReportedBeforeAndAfterTheWork(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	rdb := redis.NewClient(redisx.Configure(&redis.Options{Addr: r.Addr}, 0))
	defer rdb.Close()
	p := New(rdb, "a", Options{Budget: 200 * time.Millisecond, Lease: 300 * time.Millisecond})
	result, replayed, err := p.Do(t.Context(), "k", "print", func(ctx context.Context, _ Attempt) ([]byte, error) {
		r.Kill()
		<-ctx.Done() // the lease can't be extended
		if !errors.Is(context.Cause(ctx), errLost) {
			t.Errorf("the context ended because of %v", context.Cause(ctx))
		}
		return []byte("x"), nil
	})
	if string(result) != "x" || replayed || !errors.Is(err, ErrNotRecorded) {
		t.Errorf("Redis failed during the work: %q, %t, %v", result, replayed, err)
	}
	if _, _, err := p.Do(t.Context(), "k", "print", never(t)); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Redis is down: %v", err)
	}
	r.Restart()
	p = New(rdb, "a", Options{Budget: patience})
	if result, replayed, err := p.Do(t.Context(), "k", "print", returns("y")); string(result) != "y" || replayed || err != nil {
		t.Errorf("Redis is back: %q, %t, %v", result, replayed, err)
	}
}

func TestLostClaimIsReported(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client()
	p := New(rdb, "a", Options{Budget: patience})
	result, _, err := p.Do(t.Context(), "k", "print", func(ctx context.Context, _ Attempt) ([]byte, error) {
		return []byte("x"), rdb.FlushAll(ctx).Err()
	})
	if string(result) != "x" || !errors.Is(err, ErrNotRecorded) {
		t.Errorf("%q, %v", result, err)
	}
}

// Tokens increase even after a clock step backwards.
func TestTokensIncreaseAfterAClockStep(t *testing.T) {
	t.Parallel()
	m := miniredis.RunT(t)
	rdb := redis.NewClient(redisx.Configure(&redis.Options{Addr: m.Addr()}, 0))
	defer rdb.Close()
	p := New(rdb, "a", Options{Budget: patience})
	last, attempts := int64(0), 0
	for _, hour := range []int{12, 11, 13, 1} {
		m.SetTime(time.Date(2026, 1, 1, hour, 0, 0, 0, time.UTC))
		_, _, _ = p.Do(t.Context(), "k", "print", func(_ context.Context, a Attempt) ([]byte, error) {
			if a.Token <= last {
				t.Errorf("token %d after %d", a.Token, last)
			}
			last = a.Token
			attempts++
			return nil, errors.New("again")
		})
	}
	if attempts != 4 {
		t.Errorf("%d attempts, want 4", attempts)
	}
}

func TestParsesIdempotencyKeys(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		`k-1`: "k-1", `"k-1"`: "k-1", `"`: `"`, `""`: "", ``: "", "a\x01": "", "a\x7f": "", `a b`: "a b",
		strings.Repeat("k", 255): strings.Repeat("k", 255), strings.Repeat("k", 256): "",
	} {
		if got, err := ParseKey(given); got != want || (err != nil) != (want == "") {
			t.Errorf("%q: %q, %v", given, got, err)
		}
	}
}

func TestFingerprintsOfDifferentRequestsDiffer(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, r := range [][2]string{{"/a", "b"}, {"/a", "bc"}, {"/ab", ""}, {"/a", ""}} {
		seen[Fingerprint(r[0], []byte(r[1]))] = true
	}
	if len(seen) != 4 {
		t.Errorf("%d fingerprints of 4 requests", len(seen))
	}
}
