package lock

import (
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"herald/internal/testing/redistest"
)

// tokens acquires the lock repeatedly, each time with a new Locker, and fails unless
// each token is higher than all before.
type tokens struct {
	t     *testing.T
	addrs []string
	last  Token
}

func (k *tokens) next(after string) {
	k.t.Helper()
	o := patient()
	o.Budget = 5 * time.Second
	now := token(k.t, locker(k.t, k.addrs, o), "r")
	if now <= k.last {
		k.t.Errorf("after %s: token %d, %d before", after, now, k.last)
	}
	k.last = now
}

func TestTokensIncreaseThroughRestarts(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 3, 5} {
		all := servers(t, n)
		k := &tokens{t: t, addrs: addrs(all)}
		k.next("the start")
		for i, s := range all {
			s.Restart()
			k.next("a restart without data")
			all[(i+1)%n].Kill()
			if n > 1 {
				k.next("the loss of another node")
			}
			all[(i+1)%n].Restart()
		}
		for _, s := range all {
			s.Restart()
		}
		k.next("all restarted without data")
	}
}

func TestTokensIncreaseThroughClockSteps(t *testing.T) {
	t.Parallel()
	const n = 3
	all, clocks := make([]*redistest.Server, n), make([]*redistest.Clock, n)
	for i := range all {
		all[i], clocks[i] = redistest.StartWithClock(t)
	}
	set := func(ahead ...time.Duration) {
		for i, d := range ahead {
			clocks[i].Set(d)
			now, err := all[i].Client().Time(t.Context()).Result()
			if off := now.Sub(time.Now().Add(d)).Abs(); err != nil || off > time.Minute {
				t.Fatalf("node %d's clock is off by %v, %v", i, off, err)
			}
		}
	}
	forget := func(nodes ...int) {
		for _, i := range nodes {
			all[i].Restart()
		}
	}
	k := &tokens{t: t, addrs: addrs(all)}
	k.next("the start")
	set(0, 0, 2*time.Hour)
	k.next("one stepped forward")
	if ahead := time.Until(time.UnixMicro(int64(k.last))); ahead > time.Hour {
		t.Errorf("one wrong clock put the tokens %v ahead", ahead)
	}
	forget(2)
	k.next("it was restarted without data")
	set(2*time.Hour, 2*time.Hour, 2*time.Hour)
	k.next("all stepped forward")
	set(0, 0, 0)
	k.next("all stepped back")
	forget(1)
	k.next("one restarted without data")
	forget(0)
	k.next("another one")
	set(-time.Hour, -2*time.Hour, 0)
	all[2].Kill()
	k.next("more steps back, one down")
	forget(2)
	k.next("that one is back without data")

	// Here only the process's own memory keeps tokens increasing.
	l := locker(t, k.addrs, patient())
	before := token(t, l, "other")
	set(-3*time.Hour, -3*time.Hour, -3*time.Hour)
	forget(0, 1, 2)
	if after := token(t, l, "other"); after <= before {
		t.Errorf("all stepped back and forgot: token %d after %d", after, before)
	}
}

// A clock step gives two processes the same lock: the guard still refuses the write
// with the lower token.
func TestGuardRefusesTheEarlierHolderAfterAClockStep(t *testing.T) {
	t.Parallel()
	srv, clock := redistest.StartWithClock(t)
	first, second := locker(t, []string{srv.Addr}, patient()), locker(t, []string{srv.Addr}, patient())
	rdb := srv.Client()
	h, err := first.acquire(t.Context(), "r", 30*time.Minute, 0)
	if err != nil {
		t.Fatal(err)
	}
	h.startExtending()
	clock.Set(time.Hour) // the key expires under its holder
	tok := token(t, second, "r")
	if _, err := write.Run(t.Context(), rdb, "r:guard", tok, []string{"r"}, "second"); err != nil {
		t.Error(err)
	}
	if h.ctx.Err() != nil {
		t.Fatal("the first holder has noticed, so the test shows nothing")
	}
	if _, err := write.Run(t.Context(), rdb, "r:guard", h.token, []string{"r"}, "first"); !errors.Is(err, ErrFenced) {
		t.Errorf("the first holder's write: %v", err)
	}
	if ok, err := h.extend(t.Context()); ok {
		t.Errorf("extended a lost lock: %v", err)
	}
	h.release()
	if v := rdb.Get(t.Context(), "r").Val(); v != "second" {
		t.Errorf("the protected key is %q", v)
	}
}

// Random schedules, named by their seeds. At each step the clocks jump by up to an
// hour and any minority is unreachable. Any minority loses its data after an
// acquisition that reached all nodes.
func TestTokensIncreaseThroughFailuresOfMinorities(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		tokenSchedule(t, rand.New(rand.NewPCG(seed, 0)), seed)
	}
}

func tokenSchedule(t *testing.T, r *rand.Rand, seed uint64) {
	const n, minority = 5, 2
	var nodes []*miniredis.Miniredis
	var addrs []string
	for range n {
		nodes = append(nodes, miniredis.RunT(t))
		addrs = append(addrs, nodes[len(nodes)-1].Addr())
	}
	processes := []*Locker{locker(t, addrs, patient()), locker(t, addrs, patient()), locker(t, addrs, patient())}
	last, allRemember := Token(0), false
	for step := range 30 {
		if allRemember {
			for _, i := range r.Perm(n)[:r.IntN(minority+1)] {
				nodes[i].FlushAll()
			}
		}
		for _, m := range nodes {
			m.SetTime(time.Now().Add(time.Duration(r.Int64N(int64(2*time.Hour))) - time.Hour))
		}
		away := r.Perm(n)[:r.IntN(minority+1)]
		for _, i := range away {
			nodes[i].SetError("ERR away")
		}
		now := token(t, processes[r.IntN(len(processes))], "r")
		if now <= last {
			t.Fatalf("seed %d, step %d: token %d after %d", seed, step, now, last)
		}
		for _, i := range away {
			nodes[i].SetError("")
		}
		last, allRemember = now, len(away) == 0
	}
}

// Even processes that all believe to hold the lock get different tokens.
func TestRacingProcessesGetDifferentTokens(t *testing.T) {
	t.Parallel()
	addrs := addrs(servers(t, 5))
	var mu sync.Mutex
	seen := map[Token]bool{}
	var wg sync.WaitGroup
	for range 6 {
		l := locker(t, addrs, patient())
		wg.Go(func() {
			for range 30 {
				tok, err := l.newToken(t.Context(), "r", 5*time.Second)
				if errors.Is(err, errPromised) {
					continue
				}
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				if seen[tok] {
					t.Errorf("token %d twice", tok)
				}
				seen[tok] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	t.Logf("%d tokens, %d failed tries", len(seen), 6*30-len(seen))
	if len(seen) == 0 {
		t.Error("no process got a token")
	}
}

func TestMedian(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		v    []int64
		want int64
	}{{[]int64{7}, 7}, {[]int64{9, 1}, 1}, {[]int64{9, 1, 5}, 5}, {[]int64{4, 3, 2, 1}, 2}} {
		if got := median(c.v); got != c.want {
			t.Errorf("%v: %d", c.v, got)
		}
	}
}
