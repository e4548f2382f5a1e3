package cache

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/internal/redisx"
	"herald/internal/testing/childtest"
	"herald/internal/testing/redistest"
)

// helperVariable holds the address of Redis and makes the test binary run a helper: a
// process with one cache.
const helperVariable = "HERALD_CACHE_TEST_REDIS"

// order is a line of a helper's input.
type order struct {
	Crowd     int           // concurrent Gets
	Backend   string        // URL that the loader fetches
	Impatient time.Duration // deadline of every second Get; 0: none
}

// report is a line of a helper's output, the answer to an order.
type report struct {
	Answers map[string]int // how often each value and error was returned
	Overdue int            // Gets that returned much later than their deadline
	Stats   Stats
}

// helperOptions have a lease that a test can outlast.
var helperOptions = Options[string]{Lease: 500 * time.Millisecond, Wait: patience, Budget: patience}

// runHelper executes orders until its input is closed.
func runHelper(address string) {
	rdb := redis.NewClient(redisx.Configure(&redis.Options{Addr: address, PoolSize: 100}, 0))
	o := helperOptions
	if os.Getenv(helperVariable+"_LEASE") != "" {
		o.Lease = patience
	}
	c := New(rdb, "test", o)
	if os.Getenv(helperVariable+"_LISTEN") != "" {
		c.poll = time.Hour
		messages := rdb.Subscribe(context.Background(), c.Channel())
		if _, err := messages.Receive(context.Background()); err != nil {
			panic(err)
		}
		go func() {
			for m := range messages.Channel() {
				c.Filled(m.Payload)
			}
		}()
	}
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var o order
		if err := json.Unmarshal(lines.Bytes(), &o); err != nil {
			panic(err)
		}
		done := make(chan report)
		go func() { done <- execute(c, o) }()
		var r report
		for over := false; !over && c.Stats().Waits+c.Stats().Loads == 0; {
			select {
			case r = <-done:
				over = true
			case <-time.After(time.Millisecond):
			}
		}
		fmt.Println("busy") // loading, or waiting for another process's load
		if r.Answers == nil {
			r = <-done
		}
		b, _ := json.Marshal(r)
		fmt.Println(string(b))
	}
}

func execute(c *Cache[string], o order) report {
	r := report{Answers: map[string]int{}}
	var mu sync.Mutex
	var group sync.WaitGroup
	for i := range o.Crowd {
		group.Go(func() {
			ctx, deadline := context.Background(), time.Now().Add(time.Hour)
			if o.Impatient > 0 && i%2 == 1 {
				deadline = time.Now().Add(o.Impatient)
			}
			ctx, cancel := context.WithDeadline(ctx, deadline)
			defer cancel()
			v, err := c.Get(ctx, "k", func(ctx context.Context) (string, error) { return fetch(ctx, o.Backend) })
			mu.Lock()
			defer mu.Unlock()
			if time.Since(deadline) > 2*time.Second { // tolerates a busy machine, but not a wait for the load
				r.Overdue++
			}
			r.Answers[fmt.Sprint(v, " ", err)]++
		})
	}
	group.Wait()
	r.Stats = c.Stats()
	return r
}

func fetch(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != 200 {
		err = fmt.Errorf("backend %d", resp.StatusCode)
	}
	return string(b), err
}

// helper is a child process that runs runHelper.
type helper struct {
	*childtest.Process
	t *testing.T
}

func startHelper(t *testing.T, server *redistest.Server, settings ...string) *helper {
	t.Helper()
	env := []string{helperVariable + "=" + server.Addr}
	for _, name := range settings {
		env = append(env, helperVariable+name+"=1")
	}
	h := &helper{childtest.StartSelf(t, env...), t}
	h.await("ready")
	return h
}

func (h *helper) await(line string) {
	h.t.Helper()
	if got := h.Line(); got != line {
		h.t.Fatalf("the helper printed %q, want %q", got, line)
	}
}

func (h *helper) give(o order) {
	b, _ := json.Marshal(o)
	h.Send(string(b))
}

func (h *helper) report() (r report) {
	h.t.Helper()
	if err := json.Unmarshal([]byte(h.Line()), &r); err != nil {
		h.t.Error(err)
	}
	return r
}

// backend serves handler and counts the requests.
func backend(t *testing.T, handler http.HandlerFunc) (url string, loads *atomic.Int64) {
	loads = new(atomic.Int64)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		loads.Add(1)
		handler(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL, loads
}

const processes = 4

// together gives the same order to all helpers, calls busy when all of them load or
// wait, and returns their reports.
func together(helpers []*helper, o order, busy func()) []report {
	for _, h := range helpers {
		h.give(o)
	}
	for _, h := range helpers {
		h.await("busy")
	}
	busy()
	reports := make([]report, len(helpers))
	for i, h := range helpers {
		reports[i] = h.report()
	}
	return reports
}

func startHelpers(t *testing.T, server *redistest.Server, env ...string) (all []*helper) {
	for range processes {
		all = append(all, startHelper(t, server, env...))
	}
	return all
}

// 500 callers in each of 4 processes miss the same key and cause one load, whether the
// processes are woken by pub/sub or poll. Callers with a deadline return in time.
// Not parallel: a busy machine would delay those callers.
func TestProcessesLoadAMissingKeyOnce(t *testing.T) {
	for name, env := range map[string][]string{"subscribed": {"_LEASE", "_LISTEN"}, "polling": {"_LEASE"}} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t)
			slow := newGate(t)
			url, loads := backend(t, func(w http.ResponseWriter, _ *http.Request) {
				<-slow.release
				_, _ = io.WriteString(w, "v")
			})
			helpers := startHelpers(t, server, env...)
			waits := uint64(0)
			for i, r := range together(helpers, order{Crowd: 500, Backend: url, Impatient: 100 * time.Millisecond}, func() {
				time.Sleep(200 * time.Millisecond) // longer than the deadline
				slow.open()
			}) {
				late := r.Answers[" "+context.DeadlineExceeded.Error()]
				if r.Answers["v <nil>"] < 250 || r.Answers["v <nil>"]+late != 500 || r.Overdue > 0 {
					t.Errorf("process %d: %v, %d overdue", i, r.Answers, r.Overdue)
				}
				waits += r.Stats.Waits
				t.Logf("process %d: %+v", i, r.Stats)
			}
			if n := loads.Load(); n != 1 {
				t.Errorf("%d loads, want 1", n)
			}
			if waits != processes-1 {
				t.Errorf("%d processes waited for the one that loads", waits)
			}
		})
	}
}

// Processes call a failing loader one after the other, never two at once, and its error
// is not stored.
func TestFailingLoadersRunOneAtATime(t *testing.T) {
	server := redistest.Start(t)
	var now, most atomic.Int64
	url, loads := backend(t, func(w http.ResponseWriter, _ *http.Request) {
		if n := now.Add(1); n > most.Load() {
			most.Store(n)
		}
		time.Sleep(50 * time.Millisecond)
		now.Add(-1)
		w.WriteHeader(500)
	})
	for i, r := range together(startHelpers(t, server, "_LEASE", "_LISTEN"), order{Crowd: 500, Backend: url}, func() {}) {
		if r.Answers[" backend 500"] != 500 {
			t.Errorf("process %d: %v", i, r.Answers)
		}
	}
	if most.Load() != 1 {
		t.Errorf("%d loads at once, want 1", most.Load())
	}
	t.Logf("%d loads for %d callers", loads.Load(), processes*500)
	if keys := server.Client().Keys(t.Context(), "*").Val(); len(keys) != 0 {
		t.Errorf("keys %q", keys)
	}
}

// A process that was suspended beyond its lease can't overwrite the newer value that
// another process has stored meanwhile.
func TestSuspendedLoaderStoresNothing(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	holder := startHelper(t, server)
	asked, answer := make(chan struct{}), make(chan struct{})
	old, _ := backend(t, func(w http.ResponseWriter, _ *http.Request) {
		close(asked)
		<-answer
		_, _ = io.WriteString(w, "old")
	})
	current, _ := backend(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "new") })

	holder.give(order{Crowd: 1, Backend: old})
	receive(t, "the holder's load", asked)
	holder.Stop()
	close(answer)
	o := helperOptions
	c := newCache(t, server.Client(), o)
	load := func(ctx context.Context) (string, error) { return fetch(ctx, current) }
	if v, err := c.Get(t.Context(), "k", load); v != "new" || err != nil { // after the lease has ended
		t.Fatalf("%q, %v", v, err)
	}
	holder.Continue()
	holder.await("busy")
	r := holder.report()
	if r.Answers["old <nil>"] != 1 || r.Stats.Late != 1 {
		t.Errorf("%+v", r)
	}
	if v, err := c.Get(t.Context(), "k", load); v != "new" || err != nil {
		t.Errorf("the late value was stored: %q, %v", v, err)
	}
	if n := c.Stats(); n.Waits != 1 || n.Hits != 1 {
		t.Errorf("%+v", n)
	}
}

// When a process dies while it loads, another one loads after the lease has ended.
func TestAnotherProcessLoadsAfterACrash(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	holder := startHelper(t, server)
	asked, answer := make(chan struct{}, 2), make(chan struct{})
	url, loads := backend(t, func(w http.ResponseWriter, _ *http.Request) {
		asked <- struct{}{}
		<-answer
		_, _ = io.WriteString(w, "v")
	})
	holder.give(order{Crowd: 10, Backend: url})
	receive(t, "the holder's load", asked)
	holder.Kill()
	close(answer)
	others := []*helper{startHelper(t, server), startHelper(t, server)}
	for _, r := range together(others, order{Crowd: 100, Backend: url}, func() {}) {
		if r.Answers["v <nil>"] != 100 {
			t.Errorf("%v", r.Answers)
		}
	}
	if n := loads.Load(); n != 2 {
		t.Errorf("%d loads, want 2: the killed process's and one more", n)
	}
}

// No value older than TTL + Stale is served, although some loads fail and some outlast
// their lease.
func TestServesNothingOlderThanTTLAndStale(t *testing.T) {
	t.Parallel()
	const ttl, window = 30 * time.Millisecond, 20 * time.Millisecond
	o := Options[string]{TTL: ttl, Stale: window, Lease: 50 * time.Millisecond, Wait: 30 * time.Millisecond, Backoff: 5 * time.Millisecond, Budget: patience}
	server := redistest.Start(t)
	var calls atomic.Int64
	load := func(context.Context) (string, error) {
		n := calls.Add(1)
		time.Sleep(time.Duration(n%7) * 10 * time.Millisecond) // some outlast their lease
		if n%5 == 0 {
			return "", errBackend
		}
		return time.Now().Format(time.RFC3339Nano), nil
	}
	var served, old atomic.Int64
	var group sync.WaitGroup
	for range 3 {
		c := newCache(t, server.Client(), o)
		for range 8 {
			group.Go(func() {
				for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
					asked := time.Now()
					v, err := c.Get(t.Context(), "k", load)
					if err != nil {
						continue
					}
					loaded, err := time.Parse(time.RFC3339Nano, v)
					if err != nil {
						t.Error(err)
						return
					}
					served.Add(1)
					if age := asked.Sub(loaded); age > ttl+window+time.Millisecond { // Redis counts whole ms
						old.Add(1)
						t.Errorf("served %v old", age)
					}
				}
			})
		}
	}
	group.Wait()
	if served.Load() < 100 || calls.Load() < 10 {
		t.Errorf("%d served, %d loads: too few to show anything", served.Load(), calls.Load())
	}
	t.Logf("%d served of %d loads", served.Load(), calls.Load())
}
