package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// exact are options without jitter.
var exact = Options[string]{TTL: 10 * time.Second, Stale: 5 * time.Second, NotFoundTTL: 4 * time.Second, Jitter: -1}

func TestServesFreshThenStaleThenLoadsAgain(t *testing.T) {
	t.Parallel()
	m, c := onMini(t, exact)
	s := newSource(always("one", nil))
	want(t, c, "k", s, "one", nil)
	m.SetTime(epoch.Add(10*time.Second - time.Millisecond))
	want(t, c, "k", s, "one", nil)
	wantLoads(t, s, 1)

	s.answer(always("", errBackend)) // the failed refresh leaves the entry unchanged
	m.SetTime(epoch.Add(10 * time.Second))
	want(t, c, "k", s, "one", nil)
	await(t, "the refresh has failed", func() bool { return c.Stats().LoadErrors == 1 && m.TTL("lock:cache:test:k") == time.Second })
	m.SetTime(epoch.Add(15*time.Second - time.Millisecond))
	want(t, c, "k", s, "one", nil)

	m.SetTime(epoch.Add(15 * time.Second))
	want(t, c, "k", s, "", errBackend)
	s.answer(always("two", nil))
	want(t, c, "k", s, "two", nil)
	n := c.Stats()
	if n.Hits != 1 || n.Stale != 2 || n.Misses != 3 || n.RedisErrors != 0 {
		t.Errorf("%+v", n)
	}
	if r := n.HitRatio(); r != 0.5 {
		t.Errorf("hit ratio %v", r)
	}
}

func TestStaleIsRefreshedInTheBackground(t *testing.T) {
	t.Parallel()
	m, c := onMini(t, exact)
	s := newSource(always("one", nil))
	want(t, c, "k", s, "one", nil)
	m.SetTime(epoch.Add(11 * time.Second))
	g := newGate(t)
	s.answer(g.then("two", nil))
	for range 50 { // no call waits for the gate
		want(t, c, "k", s, "one", nil)
	}
	receive(t, "the refresh", g.entered)
	g.open()
	await(t, "it is stored", func() bool { v, err := c.Get(t.Context(), "k", s.load); return v == "two" && err == nil })
	wantLoads(t, s, 2)
}

// The age counts from the start of the load, because the value may be as old as that.
func TestAgeCountsFromTheStartOfTheLoad(t *testing.T) {
	t.Parallel()
	o := exact
	o.Lease = time.Minute
	m, c := onMini(t, o)
	s := newSource(func(context.Context) (string, error) {
		m.SetTime(epoch.Add(9 * time.Second))
		return "one", nil
	})
	want(t, c, "k", s, "one", nil)
	m.SetTime(epoch.Add(10*time.Second - time.Millisecond))
	want(t, c, "k", s, "one", nil)
	if n := c.Stats(); n.Hits != 1 {
		t.Errorf("%+v", n)
	}
	s.answer(always("two", nil))
	m.SetTime(epoch.Add(15 * time.Second))
	want(t, c, "k", s, "two", nil)

	// A load that takes longer than TTL and Stale together stores nothing.
	s.answer(func(context.Context) (string, error) {
		m.SetTime(epoch.Add(60 * time.Second))
		return "late", nil
	})
	want(t, c, "other", s, "late", nil)
	if m.Exists("cache:test:other") || c.Stats().Late != 1 {
		t.Errorf("the value was stored; %+v", c.Stats())
	}
}

func TestNotFoundIsCachedButErrorsAreNot(t *testing.T) {
	t.Parallel()
	m, c := onMini(t, exact)
	s := newSource(always("", fmt.Errorf("user 7: %w", ErrNotFound)))
	want(t, c, "k", s, "", ErrNotFound)
	s.answer(always("born", nil))
	m.SetTime(epoch.Add(4*time.Second - time.Millisecond))
	want(t, c, "k", s, "", ErrNotFound)
	wantLoads(t, s, 1)
	m.SetTime(epoch.Add(8 * time.Second)) // its TTL and its stale window
	want(t, c, "k", s, "born", nil)

	s.answer(always("", errBackend))
	for range 3 {
		want(t, c, "other", s, "", errBackend)
	}
	wantLoads(t, s, 5)
	if keys := m.Keys(); len(keys) != 1 || keys[0] != "cache:test:k" {
		t.Errorf("keys %q", keys)
	}
}

func TestNotFoundIsNotCachedWithoutATTL(t *testing.T) {
	t.Parallel()
	_, c := onMini(t, Options[string]{NotFoundTTL: -1})
	s := newSource(always("", ErrNotFound))
	want(t, c, "k", s, "", ErrNotFound)
	want(t, c, "k", s, "", ErrNotFound)
	wantLoads(t, s, 2)
}

// A failed refresh keeps the stale value and is not repeated at once.
func TestFailedRefreshKeepsTheStaleValue(t *testing.T) {
	t.Parallel()
	m, c := onMini(t, exact)
	s := newSource(always("one", nil))
	want(t, c, "k", s, "one", nil)
	m.SetTime(epoch.Add(11 * time.Second))
	s.answer(always("", errBackend))
	want(t, c, "k", s, "one", nil)
	await(t, "the refresh has failed", func() bool { return c.Stats().LoadErrors == 1 && m.TTL("lock:cache:test:k") == time.Second })
	other := newCache(t, c.rdb.(*redis.Client), exact)
	for range 20 {
		want(t, c, "k", s, "one", nil)
		want(t, other, "k", s, "one", nil)
	}
	other.Close()
	wantLoads(t, s, 2)
}

// After a clock step backwards the age of an entry is unknown.
func TestLoadsAgainAfterAClockStepBackwards(t *testing.T) {
	t.Parallel()
	m, c := onMini(t, exact)
	s := newSource(always("one", nil))
	want(t, c, "k", s, "one", nil)
	m.SetTime(epoch.Add(-time.Hour))
	s.answer(always("two", nil))
	want(t, c, "k", s, "two", nil)
}

func TestForeignEntryIsReplaced(t *testing.T) {
	t.Parallel()
	m, c := onMini(t, exact)
	now := fmt.Sprint(epoch.UnixMilli())
	for _, text := range []string{"", "x", `1,2,3;v"expired"`, now + ",9999,9999;", now + ",9999,9999;x", now + `,9999,9999;v{"not":"a string"}`} {
		if err := m.Set("cache:test:k", text); err != nil {
			t.Fatal(err)
		}
		s := newSource(always("one", nil))
		want(t, c, "k", s, "one", nil)
		want(t, c, "k", s, "one", nil)
		wantLoads(t, s, 1)
	}
}

func TestGetWithin(t *testing.T) {
	t.Parallel()
	m, c := onMini(t, exact)
	s := newSource(always("one", nil))
	within := func(age time.Duration, value string, err error) {
		t.Helper()
		if v, gotErr := c.GetWithin(t.Context(), "k", age, s.load); v != value || !errors.Is(gotErr, err) {
			t.Fatalf("%q, %v; want %q, %v", v, gotErr, value, err)
		}
	}
	within(time.Second, "one", nil)
	s.answer(always("two", nil))
	m.SetTime(epoch.Add(time.Second - time.Millisecond))
	within(time.Second, "one", nil)
	m.SetTime(epoch.Add(time.Second))
	within(time.Second, "two", nil)
	within(0, "two", nil)
	wantLoads(t, s, 3)
	s.answer(always("", errBackend))
	within(0, "", errBackend)
	want(t, c, "k", s, "two", nil)
}

// The result of a load does not bring back a key that was deleted meanwhile.
func TestDeleteDuringALoadWins(t *testing.T) {
	t.Parallel()
	m, c := onMini(t, exact)
	g := newGate(t)
	s := newSource(g.then("old", nil))
	got := make(chan string, 1)
	go func() { v, _ := c.Get(t.Context(), "k", s.load); got <- v }()
	receive(t, "the load", g.entered)
	if err := c.Delete(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	g.open()
	if v := receive(t, "the answer", got); v != "old" {
		t.Errorf("%q", v)
	}
	if m.Exists("cache:test:k") || c.Stats().Late != 1 {
		t.Errorf("the value was stored; %+v", c.Stats())
	}
	s.answer(always("new", nil))
	want(t, c, "k", s, "new", nil)
	if err := c.Delete(t.Context(), "k"); err != nil || len(m.Keys()) > 0 {
		t.Errorf("%v, %q", err, m.Keys())
	}
}

func TestJitterOnlyShortens(t *testing.T) {
	t.Parallel()
	m, c := onMini(t, Options[string]{TTL: 10 * time.Second, Stale: -1, Jitter: 0.5})
	lives := map[time.Duration]bool{}
	for i := range 50 {
		key := fmt.Sprint("k", i)
		want(t, c, key, newSource(always("v", nil)), "v", nil)
		life := m.TTL("cache:test:" + key)
		if lives[life] = true; life < 5*time.Second || life > 10*time.Second {
			t.Errorf("%v", life)
		}
	}
	if len(lives) < 40 {
		t.Errorf("only %d different TTLs", len(lives))
	}
}

func TestRefusesInvalidKeysAndNamespaces(t *testing.T) {
	t.Parallel()
	m, c := onMini(t, exact)
	s := newSource(always("v", nil))
	for _, key := range []string{"", strings.Repeat("x", 513)} {
		want(t, c, key, s, "", errKey)
		if _, err := c.GetWithin(t.Context(), key, 0, s.load); !errors.Is(err, errKey) {
			t.Error(err)
		}
		if err := c.Delete(t.Context(), key); !errors.Is(err, errKey) {
			t.Error(err)
		}
	}
	want(t, c, "a:b\x00*", s, "v", nil)
	if !m.Exists("cache:test:a:b\x00*") {
		t.Errorf("%q", m.Keys())
	}
	for _, namespace := range []string{"", "a:b", "a b", strings.Repeat("x", 65)} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("New accepted namespace %q", namespace)
				}
			}()
			New(c.rdb, namespace, Options[string]{})
		}()
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	o := Options[string]{}.withDefaults()
	if o.TTL != 300*time.Second || o.Stale != 60*time.Second || o.Lease != 5*time.Second || o.Wait != 3*time.Second {
		t.Errorf("%+v", o)
	}
	o = Options[string]{Stale: -1, NotFoundTTL: -1, TTL: 1, Jitter: 7}.withDefaults()
	if o.Stale != 0 || o.NotFoundTTL != 0 || o.TTL != time.Millisecond || o.Jitter != 1 {
		t.Errorf("%+v", o)
	}
}

func TestAnswersWhatItCannotEncode(t *testing.T) {
	t.Parallel()
	type user struct{ Name string }
	_, strings := onMini(t, exact)
	c := New(strings.rdb, "users", Options[*user]{Budget: patience})
	t.Cleanup(c.Close)
	load := func(context.Context) (*user, error) { return &user{"Ann"}, nil }
	for range 2 {
		if u, err := c.Get(t.Context(), "k", load); err != nil || u.Name != "Ann" {
			t.Errorf("%+v, %v", u, err)
		}
	}
	bad := New(strings.rdb, "bad", Options[chan int]{Budget: patience})
	t.Cleanup(bad.Close)
	v, err := bad.Get(t.Context(), "k", func(context.Context) (chan int, error) { return make(chan int), nil })
	if v == nil || err != nil {
		t.Errorf("a value that can't be encoded: %v", err)
	}
	if n := strings.rdb.Exists(t.Context(), "lock:cache:bad:k", "cache:bad:k").Val(); n != 0 {
		t.Errorf("%d keys", n)
	}
}

func TestWaitersAreWokenAndForgotten(t *testing.T) {
	t.Parallel()
	w := waiters{byName: map[string]*waiter{}}
	a, leaveA := w.wait("k")
	b, leaveB := w.wait("k")
	_, leaveC := w.wait("other")
	w.wake("k")
	<-a
	<-b
	again, leaveAgain := w.wait("k")
	leaveA()
	leaveB()
	w.wake("unknown")
	w.wakeAll()
	<-again
	leaveAgain()
	leaveC()
	_, leave := w.wait("k")
	leave()
	if len(w.byName) != 0 {
		t.Errorf("%d waiters left", len(w.byName))
	}
	var group sync.WaitGroup
	for range 100 {
		group.Go(func() {
			ch, leave := w.wait("k")
			defer leave()
			w.wake("k")
			<-ch
		})
	}
	group.Wait()
}
