package limiter

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
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

// admittedLog is every entry that Redis ever took, from its append-only file: the
// one witness that neither pruning nor a lost answer can silence.
func admittedLog(t *testing.T, s *redistest.Server, key string) []modelEntry {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.Dir(), "appendonlydir", "*.incr.aof"))
	if err != nil || len(files) != 1 {
		t.Fatalf("append-only files %v, %v", files, err)
	}
	f, err := os.Open(files[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []modelEntry
	for r := bufio.NewReader(f); ; {
		args, err := readCommand(r)
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if args[0] == "ZADD" && args[1] == key {
			all = append(all, parseEntry(t, args[2], args[3]))
		}
	}
}

func readCommand(r *bufio.Reader) ([]string, error) {
	n, err := readNumber(r, '*')
	if err != nil {
		return nil, err
	}
	args := make([]string, n)
	for i := range args {
		size, err := readNumber(r, '$')
		if err != nil {
			return nil, err
		}
		b := make([]byte, size+2)
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, err
		}
		args[i] = string(b[:size])
	}
	return args, nil
}

func readNumber(r *bufio.Reader, kind byte) (int, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return 0, err
	}
	if line[0] != kind {
		return 0, fmt.Errorf("append-only file: %q where %c was due", line, kind)
	}
	return strconv.Atoi(strings.TrimSpace(line[1:]))
}

func parseEntry(t *testing.T, score, member string) modelEntry {
	t.Helper()
	at, err1 := strconv.ParseFloat(score, 64)
	cost, err2 := strconv.Atoi(strings.Split(member, ":")[1])
	if err1 != nil || err2 != nil {
		t.Fatalf("ZADD %s %s: %v, %v", score, member, err1, err2)
	}
	return modelEntry{time.UnixMicro(int64(at)), cost}
}

func total(entries []modelEntry) (sum int) {
	for _, e := range entries {
		sum += e.cost
	}
	return sum
}

// refusal is one denied call.
type refusal struct {
	at   time.Time // by Redis's clock
	cost int
}

// checkRefusals finds a call that was denied although, by the record, there was
// room for it.
func checkRefusals(t *testing.T, record []modelEntry, denied []refusal, limit Limit) {
	t.Helper()
	slices.SortFunc(denied, func(a, b refusal) int { return a.at.Compare(b.at) })
	held, first, next := 0, 0, 0
	for _, r := range denied {
		for ; next < len(record) && !record[next].at.After(r.at); next++ {
			held += record[next].cost
		}
		for ; first < next && r.at.Sub(record[first].at) >= limit.Per; first++ {
			held -= record[first].cost
		}
		if held+r.cost <= limit.N {
			t.Fatalf("%d denied at %v with %d of %d held", r.cost, r.at, held, limit.N)
		}
	}
}

// Two nodes, many publishers, one subject: by Redis's own record no window of any
// position holds more than the limit, windows are filled to the last unit, nobody
// is denied while there is room, and what the callers were told adds up to that
// record.
func TestNoWindowHoldsMore(t *testing.T) {
	limit := Limit{N: 100, Per: 700 * time.Millisecond}
	s := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "no")
	nodes := []*Limiter{
		New(redisx.New(s.Client()), "publish", limit, Options{Budget: 30 * time.Second}),
		New(s.Client(), "publish", limit, Options{Budget: 30 * time.Second, Merge: true}),
	}
	until := time.Now().Add(3 * time.Second)
	var admitted, calls atomic.Int64
	var refusals [32][]refusal // each publisher's own
	var wg sync.WaitGroup
	for i := range refusals {
		wg.Go(func() {
			rnd, l := rand.New(rand.NewPCG(1, uint64(i))), nodes[i%2]
			for time.Now().Before(until) {
				n := 1 + rnd.IntN(3)
				d := l.Allow(context.Background(), "shop", n)
				calls.Add(1)
				if d.Allowed {
					admitted.Add(int64(n))
				} else if d.RetryAfter <= 0 || d.RetryAfter > limit.Per {
					t.Errorf("denied: %+v", d)
				} else {
					refusals[i] = append(refusals[i], refusal{d.Now, n})
				}
			}
		})
	}
	wg.Wait()
	record := admittedLog(t, s, windowKey("publish", "shop"))
	if sum := total(record); sum != int(admitted.Load()) {
		t.Errorf("Redis recorded %d, callers were admitted %d", sum, admitted.Load())
	}
	if most := fullest(record, limit.Per); most != limit.N {
		t.Errorf("the fullest window holds %d, want %d", most, limit.N)
	}
	if sum := total(record); sum < 2*limit.N {
		t.Errorf("only %d admitted in more than four windows", sum)
	}
	checkRefusals(t, record, slices.Concat(refusals[:]...), limit)
	var stats Stats
	for _, l := range nodes {
		stats.Allowed += l.Stats().Allowed
		stats.Denied += l.Stats().Denied
		stats.FailedOpen += l.Stats().FailedOpen
	}
	if stats.FailedOpen != 0 || int64(stats.Allowed+stats.Denied) != calls.Load() {
		t.Errorf("stats %+v of %d calls", stats, calls.Load())
	}
}

// Callers that leave at any moment cost nobody else anything: still no window
// holds more, and everyone who was told "allowed" by Redis is on its record.
func TestLeavingUnderLoad(t *testing.T) {
	limit := Limit{N: 200, Per: 500 * time.Millisecond}
	s := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "no")
	l := New(s.Client(), "publish", limit, Options{Budget: 30 * time.Second, Merge: true})
	until := time.Now().Add(2 * time.Second)
	var counted, left atomic.Int64
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(2, uint64(i)))
			for time.Now().Before(until) {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rnd.IntN(10_000))*time.Microsecond)
				d := l.Allow(ctx, "shop", 1)
				cancel()
				switch {
				case d.FailedOpen:
					left.Add(1)
				case d.Allowed:
					counted.Add(1)
				}
			}
		})
	}
	wg.Wait()
	record := admittedLog(t, s, windowKey("publish", "shop"))
	if most := fullest(record, limit.Per); most > limit.N {
		t.Errorf("the fullest window holds %d, want at most %d", most, limit.N)
	}
	sum := int64(total(record))
	if sum < counted.Load() || sum > counted.Load()+left.Load() {
		t.Errorf("Redis recorded %d; %d were told so, %d left", sum, counted.Load(), left.Load())
	}
	if counted.Load() == 0 || left.Load() == 0 {
		t.Errorf("nothing tried: %d counted, %d left", counted.Load(), left.Load())
	}
}

// Real Redis gives the model's answers, to the microsecond of its own clock: what
// is admitted when, what remains, when the oldest leaves, and from when exactly
// a denied cost would pass.
func TestRedisIsTheModel(t *testing.T) {
	s := redistest.Start(t)
	limit := Limit{N: 40, Per: 200 * time.Millisecond}
	l, m := New(s.Client(), "publish", limit, Options{Budget: 30 * time.Second}), &model{limit: limit}
	rnd := rand.New(rand.NewPCG(3, 3))
	for until := time.Now().Add(2 * time.Second); time.Now().Before(until); {
		n := randomCosts(rnd, limit.N/4)[0]
		d := l.Allow(context.Background(), "shop", n)
		got := verdict{clock: d.Now, wait: d.RetryAfter, remaining: d.Remaining, reset: d.ResetAfter}
		if want := m.ask(d.Now, n); got != want || d.Allowed != (want.wait == 0) || d.FailedOpen {
			t.Fatalf("Allow(%d) = %+v\nwant %+v", n, d, want)
		}
	}
	if st := l.Stats(); st.Allowed == 0 || st.Denied == 0 {
		t.Fatalf("nothing tried: %+v", st)
	}
}

func TestKeyExpiresInRedis(t *testing.T) {
	s := redistest.Start(t)
	c := s.Client()
	ctx := context.Background()
	l := New(c, "publish", Limit{N: 3, Per: 300 * time.Millisecond}, Options{Budget: 10 * time.Second})
	var d Decision
	for range 3 {
		if d = l.Allow(ctx, "shop", 1); !d.Allowed {
			t.Fatalf("%+v", d)
		}
	}
	if ttl := c.PTTL(ctx, windowKey("publish", "shop")).Val(); ttl <= 0 || ttl > 300*time.Millisecond {
		t.Fatalf("TTL %v", ttl)
	}
	leaves := d.Now.Add(300 * time.Millisecond)
	for c.Exists(ctx, windowKey("publish", "shop")).Val() == 1 {
		if now := c.Time(ctx).Val(); now.After(leaves.Add(50 * time.Millisecond)) {
			t.Fatalf("key still there %v after its newest entry left", now.Sub(leaves))
		}
	}
	if now := c.Time(ctx).Val(); now.Before(leaves) {
		t.Fatalf("key gone %v before its newest entry leaves", leaves.Sub(now))
	}
}

// A script cache that was emptied costs a second round trip, not an answer.
func TestScriptIsReloaded(t *testing.T) {
	s := redistest.Start(t)
	c := s.Client()
	l := New(c, "publish", Limit{N: 10, Per: time.Minute}, Options{Budget: 10 * time.Second})
	for i := range 3 {
		if d := l.Allow(context.Background(), "shop", 1); d.FailedOpen || d.Remaining != 9-i {
			t.Fatalf("%+v", d)
		}
		if err := c.ScriptFlush(context.Background()).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

// Concurrent requests of several subjects get each the answer of their own window, also
// while Redis loses the script.
func TestMergedRequestsKeepSubjectsApart(t *testing.T) {
	s := redistest.Start(t)
	c := s.Client()
	l := New(c, "publish", Limit{N: 20, Per: time.Minute}, Options{Budget: 30 * time.Second, Merge: true})
	var allowed [4]atomic.Int64
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			for range 10 {
				if d := l.Allow(context.Background(), strconv.Itoa(i%4), 1); d.FailedOpen {
					t.Error("failed open")
				} else if d.Allowed {
					allowed[i%4].Add(1)
				}
			}
			if i%16 == 0 {
				_ = c.ScriptFlush(context.Background()).Err()
			}
		})
	}
	wg.Wait()
	for i := range allowed {
		if n := allowed[i].Load(); n != 20 {
			t.Errorf("subject %d: %d of 160 admitted, want 20", i, n)
		}
	}
}

// Without Redis everything passes within the budget, is counted and is logged
// once a second; with it, limits hold again.
func TestFailsOpen(t *testing.T) {
	const budget = 100 * time.Millisecond
	for name, cut := range map[string]struct{ off, on func(*redistest.Server) }{
		"stopped": {(*redistest.Server).Stop, (*redistest.Server).Continue},
		"refused": {(*redistest.Server).Kill, (*redistest.Server).Restart},
	} {
		t.Run(name, func(t *testing.T) {
			s := redistest.Start(t)
			var out safeBuilder
			l := New(redisx.New(s.Client()), "publish", Limit{N: 1, Per: time.Minute}, Options{Log: slog.New(slog.NewTextHandler(&out, nil))})
			ctx := context.Background()
			awaitAnswer(t, l)
			l.Allow(ctx, "shop", 1)
			if d := l.Allow(ctx, "shop", 1); d.Allowed {
				t.Fatalf("before: %+v", d)
			}
			before := l.Stats().FailedOpen
			cut.off(s)
			began := time.Now()
			took := make([]time.Duration, 40)
			var wg sync.WaitGroup
			for i := range took {
				wg.Go(func() {
					began := time.Now()
					d := l.Allow(ctx, "shop"+strconv.Itoa(i%4), 1)
					took[i] = time.Since(began)
					if !d.Allowed || !d.FailedOpen || d.Limit.N != 1 {
						t.Errorf("%+v", d)
					}
				})
			}
			wg.Wait()
			if d := l.Allow(ctx, "shop", 2); d.Allowed || !d.TooCostly {
				t.Errorf("over the limit itself: %+v", d)
			}
			if worst := slices.Max(took); worst > budget+200*time.Millisecond {
				t.Errorf("an Allow took %v with a budget of %v", worst, budget)
			}
			t.Logf("slowest %v, budget %v", slices.Max(took), budget)
			if n := l.Stats().FailedOpen - before; n != 40 {
				t.Errorf("%d counted as failed open, want 40", n)
			}
			if n := strings.Count(out.String(), "fails open"); n < 1 || n > 2+int(time.Since(began)/time.Second) {
				t.Errorf("logged %d times:\n%s", n, out.String())
			}
			cut.on(s)
			awaitAnswer(t, l)
			l.Allow(ctx, "shop", 1)
			if d := l.Allow(ctx, "shop", 1); d.Allowed {
				t.Errorf("after: %+v", d)
			}
		})
	}
}

// awaitAnswer asks until Redis answers within the budget, however busy the machine.
func awaitAnswer(t *testing.T, l *Limiter) {
	t.Helper()
	for until := time.Now().Add(20 * time.Second); l.Allow(context.Background(), "probe", 0).FailedOpen; {
		if time.Now().After(until) {
			t.Fatal("Redis does not answer")
		}
	}
}

type safeBuilder struct {
	mu sync.Mutex
	b  strings.Builder // guarded by mu
}

func (s *safeBuilder) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuilder) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// Out of memory, Redis refuses the entry: the limiter fails open and what the
// window held is still held.
func TestOutOfMemory(t *testing.T) {
	s := redistest.Start(t)
	c := s.Client()
	ctx := context.Background()
	l := New(c, "publish", Limit{N: 10, Per: time.Minute}, Options{Budget: 10 * time.Second})
	l.Allow(ctx, "shop", 4)
	if err := c.ConfigSet(ctx, "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	if d := l.Allow(ctx, "shop", 1); !d.FailedOpen {
		t.Fatalf("%+v", d)
	}
	if err := c.ConfigSet(ctx, "maxmemory", "0").Err(); err != nil {
		t.Fatal(err)
	}
	if d := l.Allow(ctx, "shop", 1); d.FailedOpen || d.Remaining != 5 {
		t.Fatalf("%+v", d)
	}
}

func BenchmarkAllow(b *testing.B) {
	s := redistest.Start(b)
	limiter := func(n int) *Limiter {
		return New(s.Client(), "publish", Limit{N: n, Per: time.Minute}, Options{Budget: 10 * time.Second, Merge: true})
	}
	ctx := context.Background()
	b.Run("uncontended", func(b *testing.B) {
		l := limiter(MaxN)
		b.ReportAllocs()
		for b.Loop() {
			l.Allow(ctx, "alone", 1)
		}
	})
	b.Run("uncontended,denied", func(b *testing.B) {
		l := limiter(1000)
		for range 1000 {
			l.Allow(ctx, "denied", 1)
		}
		b.ReportAllocs()
		for b.Loop() {
			l.Allow(ctx, "denied", 1)
		}
	})
	b.Run("32 parallel,one subject", func(b *testing.B) {
		parallel(b, limiter(MaxN), func(int64) string { return "shared" })
	})
	b.Run("32 parallel,32 subjects", func(b *testing.B) {
		parallel(b, limiter(MaxN), func(i int64) string { return "own" + strconv.FormatInt(i, 10) })
	})
}

// BenchmarkAllowEmbedded is through the Redis of a gateway without one.
func BenchmarkAllowEmbedded(b *testing.B) {
	c := redis.NewClient(redisx.Configure(&redis.Options{Addr: miniredis.RunT(b).Addr()}, 0))
	defer func() { _ = c.Close() }()
	l := New(c, "publish", Limit{N: 1000, Per: time.Minute}, Options{Budget: 10 * time.Second})
	b.ReportAllocs()
	for b.Loop() {
		l.Allow(b.Context(), "alone", 1)
	}
}

func parallel(b *testing.B, l *Limiter, subject func(int64) string) {
	var started, left atomic.Int64
	left.Store(int64(b.N))
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			name := subject(started.Add(1))
			for left.Add(-1) >= 0 {
				l.Allow(context.Background(), name, 1)
			}
		})
	}
	wg.Wait()
	if failed := l.Stats().FailedOpen; failed > 0 {
		b.Fatalf("%d failed open", failed)
	}
}

// The script alone, in a window that holds a million entries.
func BenchmarkMillionEntries(b *testing.B) {
	const entries = 1_000_000
	s := redistest.Start(b)
	c := s.Client()
	ctx := context.Background()
	now := c.Time(ctx).Val().UnixMicro()
	for first := 0; first < entries; first += 10_000 {
		z := make([]redis.Z, 10_000)
		for i := range z {
			z[i] = redis.Z{Score: float64(now + int64(first+i) - entries), Member: fmt.Sprintf("%016d:1", first+i+1)}
		}
		if err := c.ZAdd(ctx, windowKey("publish", "big"), z...).Err(); err != nil {
			b.Fatal(err)
		}
	}
	for name, limit := range map[string]int{"admitted": MaxN, "denied": entries - 1} {
		b.Run(name, func(b *testing.B) {
			l := New(c, "publish", Limit{N: limit, Per: MaxPer}, Options{Budget: 10 * time.Second})
			b.ReportAllocs()
			for b.Loop() {
				l.Allow(ctx, "big", 1)
			}
		})
	}
}
