package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/internal/redisx"
	"herald/internal/testing/redistest"
	"herald/notify"
)

// alone is how many publishes go alone before others queue (redisx.Group).
const alone = 4

// gate is a hook that holds scripts back until the test lets them pass.
type gate struct {
	pass  chan struct{}
	calls atomic.Int64
}

func (g *gate) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (g *gate) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (g *gate) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() == "evalsha" {
			g.calls.Add(1)
			<-g.pass
		}
		return next(ctx, cmd)
	}
}

// gated is a broker whose scripts wait, on a client that knows the script already.
func gated(t *testing.T, rdb *redis.Client, o Options) (*Broker, *gate) {
	t.Helper()
	publish(t, New(rdb, Options{Budget: patience}), draft("warm", "1"))
	g := &gate{pass: make(chan struct{})}
	rdb.AddHook(g)
	return New(rdb, o), g
}

// awaitTurn returns when n publishes are under way or wait.
func (b *Broker) awaitTurn(g *gate, n int) {
	for {
		if int(g.calls.Load())+b.batches.Queued() == n {
			return
		}
		runtime.Gosched()
	}
}

// What comes while a call is in flight goes as one call, in order of arrival,
// and everyone gets the receipt of what is its own.
func TestPublishesThatWaitGoTogether(t *testing.T) {
	onBoth(t, func(t *testing.T, rdb *redis.Client) {
		b, g := gated(t, rdb, Options{Budget: patience})
		var wg sync.WaitGroup
		receipts := make([]Receipt, alone+maxBatch+9)
		user := func(i int) string {
			if i < alone { // in whatever order
				return fmt.Sprint("alone", i)
			}
			return fmt.Sprint("u", i%7)
		}
		for i := range receipts {
			wg.Go(func() { receipts[i] = publish(t, b, draft(user(i), fmt.Sprint(i)))[0] })
			b.awaitTurn(g, i+1)
		}
		close(g.pass)
		wg.Wait()
		if n := g.calls.Load(); n != alone+2 {
			t.Errorf("%d calls for %d alone, and %d and 9 together", n, alone, maxBatch)
		}
		logs := map[string][]notify.Frame{}
		for i, r := range receipts {
			if _, ok := logs[user(i)]; !ok {
				logs[user(i)] = readAll(t, b, user(i))
			}
			log := logs[user(i)]
			if log[0].ID != r.ID || !strings.HasSuffix(log[0].JSON, fmt.Sprintf(`"message":%d}`, i)) {
				t.Errorf("publish %d has receipt %d, the log %s", i, r.ID, log[0].JSON)
			}
			logs[user(i)] = log[1:]
		}
	})
}

// Somebody whose log is not a stream costs nobody else a message.
func TestPublishThatFailsFailsAlone(t *testing.T) {
	onBoth(t, func(t *testing.T, rdb *redis.Client) {
		b, g := gated(t, rdb, Options{Budget: patience})
		if err := rdb.Set(t.Context(), logKey("bad"), "x", 0).Err(); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		users := append(slices.Repeat([]string{"first"}, alone), "a", "bad", "b")
		errs := make([]error, len(users))
		for i, user := range users {
			wg.Go(func() { _, _, errs[i] = b.Publish(t.Context(), []notify.Draft{draft(user, "1")}, Idempotency{}) })
			b.awaitTurn(g, i+1)
		}
		close(g.pass)
		wg.Wait()
		for i, user := range users {
			if bad := user == "bad"; bad != errors.Is(errs[i], redisx.ErrUnavailable) || bad == (errs[i] == nil) {
				t.Errorf("%s: %v", user, errs[i])
			}
		}
		for _, user := range []string{"a", "b"} {
			if n := len(readAll(t, b, user)); n != 1 {
				t.Errorf("%s has %d", user, n)
			}
		}
	})
}

// While Redis is stopped each publish is answered within its own budget, however
// many wait, and nothing of it is stored when Redis goes on.
func TestStoppedRedisHoldsNoLineUp(t *testing.T) {
	srv := redistest.Start(t)
	rdb := client(t, srv.Addr)
	const budget = 200 * time.Millisecond
	b := New(rdb, Options{Budget: budget})
	publish(t, b, draft("a", "1"))
	srv.Stop()
	var wg sync.WaitGroup
	var late atomic.Int64
	for range 8 {
		wg.Go(func() {
			for range 5 {
				began := time.Now()
				if _, _, err := b.Publish(t.Context(), []notify.Draft{draft("a", "2")}, Idempotency{}); !errors.Is(err, redisx.ErrUnavailable) {
					t.Errorf("published to a stopped Redis: %v", err)
				}
				if time.Since(began) > budget+5*time.Second {
					late.Add(1)
				}
			}
		})
	}
	wg.Wait()
	srv.Continue()
	if n := late.Load(); n > 0 {
		t.Errorf("%d publishes waited for others' budgets", n)
	}
	publish(t, b, draft("a", "3"))
	if log := readAll(t, b, "a"); len(log) != 2 {
		t.Errorf("the log has %d entries: what was refused was stored", len(log))
	}
}

func TestCancelledPublishIsWithdrawn(t *testing.T) {
	onBoth(t, func(t *testing.T, rdb *redis.Client) {
		b, g := gated(t, rdb, Options{Budget: patience})
		var wg sync.WaitGroup
		for i := range alone {
			wg.Go(func() { publish(t, b, draft("first", "1")) })
			b.awaitTurn(g, i+1)
		}
		ctx, cancel := context.WithCancel(t.Context())
		withdrawn := make(chan error)
		go func() {
			_, _, err := b.Publish(ctx, []notify.Draft{draft("gone", "1")}, Idempotency{})
			withdrawn <- err
		}()
		b.awaitTurn(g, alone+1)
		cancel()
		if err := <-withdrawn; !errors.Is(err, context.Canceled) || !errors.Is(err, redisx.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
		close(g.pass)
		wg.Wait()
		if log := readAll(t, b, "gone"); len(log) != 0 {
			t.Errorf("a withdrawn publish is stored: %+v", log)
		}
	})
}

// admitThree is a condition that lets three pass under each key, and fails where
// the key is not its own.
const admitThree = `
local function admit(key, costs)
  local reply, n = { 42 }, redis.call('INCRBY', key, #costs / 2)
  for i = 1, #costs / 2 do
    local place = n - #costs / 2 + i
    reply[#reply + 1] = place > 3 and 7 or 0
    reply[#reply + 1] = math.max(0, 3 - place)
    reply[#reply + 1] = i
  end
  return reply
end
`

// What is not admitted is neither stored nor counted as failed, and each answer
// is of its own key; where there is no answer everything passes.
func TestPublishAdmitted(t *testing.T) {
	onBoth(t, func(t *testing.T, rdb *redis.Client) {
		o := Options{Budget: patience, Admit: admitThree}
		publish(t, New(rdb, o), draft("warm", "1"))
		if err := rdb.LPush(t.Context(), "broken", "x").Err(); err != nil {
			t.Fatal(err)
		}
		g := &gate{pass: make(chan struct{})}
		rdb.AddHook(g)
		b := New(rdb, o)
		type result struct {
			r   Receipt
			a   Admission
			err error
		}
		keys := append(slices.Repeat([]string{""}, alone), "x", "y", "x", "broken", "x", "", "x", "y", "x")
		results := make([]result, len(keys))
		var wg sync.WaitGroup
		for i, key := range keys {
			wg.Go(func() {
				d := draft(fmt.Sprint("u", i), "1")
				results[i].r, results[i].a, results[i].err = b.PublishAdmitted(t.Context(), &d, key)
			})
			b.awaitTurn(g, i+1)
		}
		close(g.pass)
		wg.Wait()
		seen := map[string]int{}
		for i, got := range results {
			key := keys[i]
			seen[key]++
			asked := key == "x" || key == "y"
			denied := asked && seen[key] > 3
			if got.err != nil || got.a.Asked != asked || got.a.Denied() != denied || (got.r.ID != 0) == denied {
				t.Errorf("%d under %q: %+v", i, key, got)
			}
			if want := max(0, 3-seen[key]); asked && (got.a.Clock != 42 || got.a.Numbers[1] != int64(want)) {
				t.Errorf("%d under %q has another's answer: %+v", i, key, got.a)
			}
			if n := len(readAll(t, b, fmt.Sprint("u", i))); (n == 0) != denied {
				t.Errorf("%d under %q: %d stored", i, key, n)
			}
		}
	})
}

// A script that runs at the very end of its publisher's patience would store what
// is answered with 503 before its own answer arrives.
func TestDeadlineLeavesTimeForTheAnswer(t *testing.T) {
	b := New(nil, Options{})
	until := b.start.Add(300 * time.Millisecond)
	if n := b.deadline(until); n != int64(notify.MaxID) {
		t.Errorf("without Redis's time: %d", n)
	}
	b.offset.Store(1000)
	if n := b.deadline(until); n != 1000+300-answerTime.Milliseconds() {
		t.Errorf("deadline %d", n)
	}
}
