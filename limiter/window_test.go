package limiter

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"herald/internal/redisx"
)

// start is any moment; the odd microseconds make lost precision show.
var start = time.UnixMicro(1764000000123457)

// embedded is a miniredis whose clock the test moves.
type embedded struct {
	*miniredis.Miniredis
	client *redis.Client
	now    time.Time
	passed time.Duration // all moves forward; a step back is no time passing
}

func newEmbedded(t *testing.T) *embedded {
	t.Helper()
	e := &embedded{Miniredis: miniredis.RunT(t), now: start}
	e.SetTime(start)
	e.ClockTTL(true)
	e.client = redis.NewClient(redisx.Configure(&redis.Options{Addr: e.Addr()}, 0))
	t.Cleanup(func() { _ = e.client.Close() })
	return e
}

func (e *embedded) move(d time.Duration) {
	e.now = e.now.Add(d)
	e.passed += max(0, d)
	e.SetTime(e.now)
}

const testKey = "ratelimit:test:a"

func ask(t testing.TB, w *window, costs ...int) []verdict {
	t.Helper()
	text := strings.Trim(strings.ReplaceAll(fmt.Sprint(costs), " ", ","), "[]")
	r, err := w.run(context.Background(), testKey, text, len(costs))
	if err != nil {
		t.Fatalf("ask(%v): %v", costs, err)
	}
	all := make([]verdict, len(costs))
	for i := range all {
		all[i] = r.verdict(i)
	}
	return all
}

// model is the window as one would say it: a list of what was admitted when, each
// question answered by looking at all of it.
type model struct {
	limit   Limit
	entries []modelEntry  // those that have not left
	skew    time.Duration // how far the clock has stepped back in all
}

type modelEntry struct {
	at   time.Time // without the steps
	cost int
}

func (m *model) held(now time.Time) (held int) {
	for _, e := range m.entries {
		if now.Sub(e.at) < m.limit.Per {
			held += e.cost
		}
	}
	return held
}

func (m *model) ask(clock time.Time, cost int) verdict {
	now := m.moveTo(clock)
	v := verdict{clock: clock, wait: m.wait(now, cost)}
	if v.wait == 0 && cost > 0 {
		m.entries = append(m.entries, modelEntry{now, cost})
	}
	v.remaining = max(0, m.limit.N-m.held(now))
	if len(m.entries) > 0 {
		v.reset = m.entries[0].at.Add(m.limit.Per).Sub(now)
	}
	return v
}

// moveTo notices a step back and lets go of what has left.
func (m *model) moveTo(clock time.Time) (now time.Time) {
	now = clock.Add(m.skew)
	if n := len(m.entries); n > 0 && now.Before(m.entries[n-1].at) {
		m.skew += m.entries[n-1].at.Sub(now)
		now = m.entries[n-1].at
	}
	for len(m.entries) > 0 && now.Sub(m.entries[0].at) >= m.limit.Per {
		m.entries = m.entries[1:]
	}
	if len(m.entries) == 0 {
		m.skew, now = 0, clock
	}
	return now
}

func (m *model) wait(now time.Time, cost int) time.Duration {
	if cost > m.limit.N {
		return m.limit.Per
	}
	if m.held(now)+cost <= m.limit.N {
		return 0
	}
	for _, e := range m.entries {
		leaves := e.at.Add(m.limit.Per)
		if m.held(leaves)+cost <= m.limit.N {
			return leaves.Sub(now)
		}
	}
	panic("no moment at which the cost fits")
}

// fullest is the most that any window holds, at whatever position.
func fullest(entries []modelEntry, per time.Duration) int {
	most, held, first := 0, 0, 0
	for _, e := range entries {
		held += e.cost
		for e.at.Sub(entries[first].at) >= per {
			held -= entries[first].cost
			first++
		}
		most = max(most, held)
	}
	return most
}

// The script's answers are the model's, to the microsecond, for random costs,
// batches and times, including the very moments at which something leaves.
func TestWindowIsTheModel(t *testing.T) {
	for seed := range uint64(16) {
		steps := seed%2 == 1
		t.Run(fmt.Sprintf("seed=%d,clockStepsBack=%t", seed, steps), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 7))
			e := newEmbedded(t)
			// An expiry in miniredis does not notice a step back; the real one's does.
			e.ClockTTL(!steps)
			limit := Limit{N: 1 + rnd.IntN(60), Per: time.Duration(1+rnd.IntN(5)) * time.Second}
			w, m := newWindow(e.client, limit), &model{limit: limit}
			last := verdict{}
			var admitted []modelEntry // by the time that passed
			for range 400 {
				e.move(nextMove(rnd, limit.Per, last, steps))
				batch := randomCosts(rnd, limit.N)
				for i, got := range ask(t, w, batch...) {
					want := m.ask(e.now, batch[i])
					if !got.clock.Equal(want.clock) {
						t.Fatalf("clock = %v, want %v", got.clock, want.clock)
					}
					got.clock = want.clock
					if got != want {
						t.Fatalf("costs %v, number %d, limit %s:\n got %+v\nwant %+v", batch, i, limit, got, want)
					}
					last = got
					if got.wait == 0 {
						admitted = append(admitted, modelEntry{start.Add(e.passed), batch[i]})
					}
				}
			}
			if most := fullest(admitted, limit.Per); most > limit.N {
				t.Fatalf("a window holds %d of %s", most, limit)
			}
		})
	}
}

func nextMove(rnd *rand.Rand, per time.Duration, last verdict, steps bool) time.Duration {
	switch rnd.IntN(12) {
	case 0, 1:
		return 0
	case 2:
		return time.Microsecond
	case 3, 4:
		return last.wait
	case 5:
		return max(0, last.wait-time.Microsecond)
	case 6:
		return last.reset
	case 7:
		return max(0, last.reset-time.Microsecond)
	case 8:
		if steps {
			return -time.Duration(rnd.Int64N(int64(2 * per))).Truncate(time.Microsecond)
		}
		return per + time.Duration(rnd.IntN(3)-1)*time.Microsecond
	}
	return time.Duration(rnd.Int64N(int64(per / 8))).Truncate(time.Microsecond)
}

func randomCosts(rnd *rand.Rand, n int) []int {
	costs := make([]int, 1)
	if rnd.IntN(4) == 0 {
		costs = make([]int, 1+rnd.IntN(6))
	}
	for i := range costs {
		costs[i] = []int{0, 1, 1, 1, 1 + rnd.IntN(n), 1 + rnd.IntN(max(1, n/4)), n + 1}[rnd.IntN(7)]
	}
	return costs
}

// Calls within one microsecond are as many entries, and all count.
func TestOneMicrosecond(t *testing.T) {
	e := newEmbedded(t)
	w := newWindow(e.client, Limit{N: 50, Per: time.Minute})
	for i := range 60 {
		if got := ask(t, w, 1)[0].wait == 0; got != (i < 50) {
			t.Fatalf("call %d admitted = %t", i, got)
		}
	}
	if members, _ := e.ZMembers(testKey); len(members) != 50 {
		t.Fatalf("%d members, want 50", len(members))
	}
}

// A batch is one entry, and a denied one none.
func TestEntries(t *testing.T) {
	e := newEmbedded(t)
	w := newWindow(e.client, Limit{N: 10, Per: time.Minute})
	ask(t, w, 4, 9, 3)
	e.move(time.Second)
	ask(t, w, 5)
	ask(t, w, 0)
	want := map[string]float64{"0000000000000007:7": float64(start.UnixMicro())}
	if got, _ := e.SortedSet(testKey); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("zset = %v, want %v", got, want)
	}
}

func TestStepBack(t *testing.T) {
	const per = time.Minute
	for _, step := range []time.Duration{time.Microsecond, 3 * time.Millisecond, per - time.Microsecond, per, 2 * time.Hour} {
		t.Run(step.String(), func(t *testing.T) {
			e := newEmbedded(t)
			e.ClockTTL(false)
			w := newWindow(e.client, Limit{N: 10, Per: per})
			ask(t, w, 4)
			e.move(10 * time.Second)
			ask(t, w, 6)
			e.move(-step)
			e.Miniredis.SetTTL(testKey, step+per) // as the real one's absolute expiry does
			if v := ask(t, w, 1)[0]; v.wait != per-10*time.Second {
				t.Fatalf("full window right after the step: %+v", v)
			}
			if ttl := e.TTL(testKey); ttl > per {
				t.Fatalf("key lives %v after the step", ttl)
			}
			e.move(per - 10*time.Second - time.Microsecond)
			if v := ask(t, w, 1)[0]; v.wait != time.Microsecond {
				t.Fatalf("1µs before the oldest leaves: %+v", v)
			}
			e.move(time.Microsecond)
			if v := ask(t, w, 4)[0]; v.wait != 0 || v.remaining != 0 {
				t.Fatalf("when the oldest has left: %+v", v)
			}
			e.move(10 * time.Second)
			if v := ask(t, w, 6)[0]; v.wait != 0 || v.remaining != 0 {
				t.Fatalf("when the second has left: %+v", v)
			}
		})
	}
}

// The sums start again at 1e15, not within a microsecond, and the answers do not
// change.
func TestSumStartsAgain(t *testing.T) {
	e := newEmbedded(t)
	limit := Limit{N: 20, Per: time.Minute}
	w := newWindow(e.client, limit)
	if _, err := e.ZAdd(testKey, float64(start.UnixMicro()), "0999999999999996:8"); err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		if v := ask(t, w, 1)[0]; v.wait != 0 || v.remaining != 11-i {
			t.Fatalf("call %d: %+v", i, v)
		}
	}
	e.move(time.Microsecond)
	for i := range 6 {
		if v := ask(t, w, 1)[0]; v.wait != 0 || v.remaining != 5-i {
			t.Fatalf("call %d: %+v", 6+i, v)
		}
	}
	members, _ := e.ZMembers(testKey)
	if got := members[6:8]; got[0] != "1000000000000002:1" || got[1] != "0000000000000003:1" {
		t.Fatalf("members around the new start: %v", got)
	}
	for cost, want := range map[int]time.Duration{8: -1, 14: -1, 15: 0} {
		if v := ask(t, w, cost)[0]; v.wait != limit.Per+want*time.Microsecond {
			t.Fatalf("%d more: %+v", cost, v)
		}
	}
	e.move(limit.Per - time.Microsecond)
	if v := ask(t, w, 14)[0]; v.wait != 0 || v.remaining != 0 {
		t.Fatalf("when the first microsecond's have left: %+v", v)
	}
}

// However much has left the window, one run removes a bounded number, and what
// is left behind counts nothing.
func TestPruningIsBounded(t *testing.T) {
	e := newEmbedded(t)
	limit := Limit{N: 3000, Per: time.Minute}
	w := newWindow(e.client, limit)
	for i := range 2500 {
		if _, err := e.ZAdd(testKey, float64(start.UnixMicro()+int64(i)), fmt.Sprintf("%016d:1", i+1)); err != nil {
			t.Fatal(err)
		}
	}
	e.move(30 * time.Second)
	ask(t, w, 500)
	e.move(30*time.Second + 2400*time.Microsecond)
	for i, want := range []int{1502, 503, 103, 104} {
		v := ask(t, w, 1)[0]
		if held := limit.N - v.remaining; held != 99+500+i+1 {
			t.Fatalf("run %d: held %d, want %d", i, held, 99+500+i+1)
		}
		if members, _ := e.ZMembers(testKey); len(members) != want {
			t.Fatalf("run %d: %d members, want %d", i, len(members), want)
		}
	}
	if v := ask(t, w, 3000-603+50)[0]; v.wait != 50*time.Microsecond {
		t.Fatalf("room for it comes when the 50th has left: %+v", v)
	}
}

func TestKeyExpires(t *testing.T) {
	e := newEmbedded(t)
	w := newWindow(e.client, Limit{N: 5, Per: time.Minute})
	ask(t, w, 1)
	e.move(40 * time.Second)
	ask(t, w, 1)
	e.move(time.Second)
	ask(t, w, 9)
	if ttl := e.TTL(testKey); ttl != 59*time.Second {
		t.Fatalf("TTL %v: the denied renewed it, or the admitted did not", ttl)
	}
	e.move(59 * time.Second)
	if e.Exists(testKey) {
		t.Fatal("key outlives its newest entry")
	}
}

// A lower limit than the one the entries were admitted under.
func TestLimitLowered(t *testing.T) {
	e := newEmbedded(t)
	ask(t, newWindow(e.client, Limit{N: 10, Per: time.Minute}), 4)
	e.move(time.Second)
	ask(t, newWindow(e.client, Limit{N: 10, Per: time.Minute}), 4)
	low := newWindow(e.client, Limit{N: 5, Per: time.Minute})
	if v := ask(t, low, 1)[0]; v.wait != 59*time.Second || v.remaining != 0 {
		t.Fatalf("one of 5 with 8 held: %+v", v)
	}
	if v := ask(t, low, 2)[0]; v.wait != time.Minute {
		t.Fatalf("two of 5 with 4 and 4 held: %+v", v)
	}
	if v := ask(t, low, 0)[0]; v.wait != 0 || v.remaining != 0 {
		t.Fatalf("a look: %+v", v)
	}
}

func TestEscapeKeepsSubjectsApart(t *testing.T) {
	for subject, want := range map[string]string{
		"shop":           "ratelimit:publish:shop",
		"192.0.2.1":      "ratelimit:publish:192.0.2.1",
		"a:b":            "ratelimit:publish:a%3Ab",
		"a%3Ab":          "ratelimit:publish:a%253Ab",
		"{x}*\x00\xff é": "ratelimit:publish:%7Bx%7D%2A%00%FF%20%C3%A9",
		"":               "ratelimit:publish:",
	} {
		if got := windowKey("publish", subject); got != want {
			t.Errorf("windowKey(%q) = %q, want %q", subject, got, want)
		}
	}
}
