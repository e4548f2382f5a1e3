package schedule

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"herald/internal/redisx"
	"herald/internal/testing/redistest"
	"herald/notify"
)

func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "8") // most tests wait
	goleak.VerifyTestMain(m)
}

// patience is a budget that tolerates a busy machine.
const patience = 30 * time.Second

// client returns a client as the gateway configures it.
func client(t testing.TB, addr string) *redis.Client {
	rdb := redis.NewClient(redisx.Configure(&redis.Options{Addr: addr, PoolSize: 64}, 0))
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

// onBoth runs a test on miniredis and on a redis-server.
func onBoth(t *testing.T, f func(t *testing.T, rdb *redis.Client)) {
	t.Run("miniredis", func(t *testing.T) { t.Parallel(); f(t, client(t, miniredis.RunT(t).Addr())) })
	t.Run("redis", func(t *testing.T) { t.Parallel(); f(t, client(t, redistest.Start(t).Addr)) })
}

// deliverScript publishes as a Deliver must: it pushes entries that still exist onto a
// list and removes them in the same step.
var deliverScript = redis.NewScript(`
local n = 0
for i = 1, #ARGV do
  if redis.call('HEXISTS', KEYS[i], ARGV[i]) == 1 then
    redis.call('RPUSH', 'delivered', ARGV[i])
    redis.call('HDEL', KEYS[i], ARGV[i])
    n = n + 1
  end
end
return n`)

// toList delivers onto the list.
func toList(rdb *redis.Client) Deliver {
	return func(ctx context.Context, due []Due) (int, error) {
		var keys []string
		var fields []any
		for _, d := range due {
			keys, fields = append(keys, d.Key), append(fields, d.Field)
		}
		return deliverScript.Run(ctx, rdb, keys, fields...).Int()
	}
}

func item(user, message string, delay time.Duration) Item {
	return Item{Draft: notify.Draft{UserID: user, Message: []byte(message)}, When: notify.When{Delay: delay}}
}

func add(t testing.TB, s *Scheduler, items ...Item) []string {
	t.Helper()
	placed, err := s.Add(t.Context(), items, Fence{})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, p := range placed {
		ids = append(ids, p.ID)
	}
	return ids
}

// run runs the scheduler until stop is called or the test ends.
func run(t testing.TB, s *Scheduler) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return stop
}

func delivered(t testing.TB, rdb *redis.Client) []string {
	t.Helper()
	list, err := rdb.LRange(t.Context(), "delivered", 0, -1).Result()
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// await waits until n entries are delivered; more are an error.
func await(t testing.TB, rdb *redis.Client, n int) []string {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		list := delivered(t, rdb)
		if len(list) > n || len(list) < n && time.Now().After(deadline) {
			t.Fatalf("%d delivered, want %d", len(list), n)
		}
		if len(list) == n {
			return list
		}
	}
}

// empty waits until no key of the schedule is left.
func empty(t testing.TB, rdb *redis.Client) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		keys := slices.Concat(rdb.Keys(t.Context(), "schedule:*").Val(), rdb.Keys(t.Context(), "user:*").Val())
		if len(keys) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left: %q", keys)
		}
	}
}

func TestDeliversInOrderWhenDue(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb *redis.Client) {
		s := New(rdb, "n", toList(rdb), Options{Budget: patience})
		run(t, s)
		ids := add(t, s, item("a", `1`, 600*time.Millisecond), item("a", `2`, 300*time.Millisecond), item("a", `3`, 300*time.Millisecond),
			Item{Draft: notify.Draft{UserID: "a", Message: []byte(`4`)}, When: notify.When{At: time.Unix(1, 0)}})
		if got, want := await(t, rdb, 4), []string{ids[3], ids[1], ids[2], ids[0]}; !slices.Equal(got, want) {
			t.Errorf("delivered %q, want %q", got, want)
		}
		now := rdb.Time(t.Context()).Val()
		for _, id := range ids {
			if at, user, ok := ParseID(id); !ok || user != "a" || at.After(now.Add(time.Second)) || at.Before(now.Add(-time.Minute)) {
				t.Errorf("id %s: %v, %s, %t", id, at, user, ok)
			}
		}
		empty(t, rdb)
		if st := s.Stats(); st.Added != 4 || st.Delivered != 4 || st.Failed != 0 {
			t.Errorf("counted %+v", st)
		}
	})
}

// All fields of a draft are delivered byte for byte.
func TestDraftsAreDeliveredUnchanged(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb *redis.Client) {
		got := make(chan notify.Draft, 1)
		list := toList(rdb)
		s := New(rdb, "n", func(ctx context.Context, due []Due) (int, error) {
			got <- due[0].Draft
			return list(ctx, due)
		}, Options{Budget: patience})
		want := notify.Draft{
			UserID: "a.b_c-d@e", Message: []byte("{ \"a\" :\n\"\\u0041<é\u2028\" }"), Kind: "k\"ind é", TTL: 3 * time.Second,
			Ephemeral: true, TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		}
		add(t, s, Item{Draft: want, When: notify.When{At: time.Unix(1, 0)}})
		entries, more, err := s.List(t.Context(), want.UserID, "", 10)
		if err != nil || more || len(entries) != 1 || fmt.Sprint(entries[0].Draft) != fmt.Sprint(want) {
			t.Errorf("listed %+v, %t, %v", entries, more, err)
		}
		run(t, s)
		if d := <-got; fmt.Sprint(d) != fmt.Sprint(want) {
			t.Errorf("got %+v, want %+v", d, want)
		}
	})
}

func TestCancelledEntryIsNotDelivered(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb *redis.Client) {
		s := New(rdb, "n", toList(rdb), Options{Budget: patience})
		ids := add(t, s, item("a", `1`, 100*time.Millisecond), item("a", `2`, 100*time.Millisecond))
		if err := s.Cancel(t.Context(), ids[0]); err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{ids[0], "", "x", "1764000000017-1764000000017123000-a", ids[0] + "*"} {
			if err := s.Cancel(t.Context(), id); !errors.Is(err, ErrNotFound) {
				t.Errorf("%q: %v", id, err)
			}
		}
		run(t, s)
		if got := await(t, rdb, 1); got[0] != ids[1] {
			t.Errorf("delivered %q", got)
		}
		if err := s.Cancel(t.Context(), ids[1]); !errors.Is(err, ErrNotFound) {
			t.Errorf("delivered already: %v", err)
		}
		empty(t, rdb)
	})
}

// An entry that is cancelled just when it is due is either cancelled or delivered.
func TestEntryIsEitherCancelledOrDelivered(t *testing.T) {
	t.Parallel()
	rdb := client(t, redistest.Start(t).Addr)
	s := New(rdb, "n", toList(rdb), Options{Budget: patience})
	var items []Item
	for i := range 500 {
		items = append(items, item(fmt.Sprint("u", i%50), `1`, 100*time.Millisecond))
	}
	ids := add(t, s, items...)
	run(t, s)
	time.Sleep(90 * time.Millisecond)
	cancelled := map[string]bool{}
	for _, id := range ids {
		if err := s.Cancel(t.Context(), id); err == nil {
			cancelled[id] = true
		} else if !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
	}
	for _, id := range await(t, rdb, len(ids)-len(cancelled)) {
		if cancelled[id] {
			t.Errorf("%s was cancelled and delivered", id)
		}
	}
	t.Logf("%d of %d cancelled", len(cancelled), len(ids))
}

func TestListsInPagesByTime(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb *redis.Client) {
		s := New(rdb, "n", toList(rdb), Options{Budget: patience})
		var items []Item
		for i := range 25 {
			items = append(items, item("a", fmt.Sprint(i), time.Duration(25-i)*time.Hour))
		}
		add(t, s, append(items, item("b", `"other"`, time.Hour))...)
		var got []string
		after, more := "", true
		for more {
			var page []Entry
			var err error
			if page, more, err = s.List(t.Context(), "a", after, 10); err != nil || len(page) == 0 || len(page) > 10 {
				t.Fatalf("%d entries, %v", len(page), err)
			}
			for _, e := range page {
				got = append(got, string(e.Draft.Message))
			}
			after = page[len(page)-1].ID
		}
		slices.Reverse(got)
		for i := range 25 {
			if got[i] != fmt.Sprint(i) {
				t.Fatalf("got %q reversed", got)
			}
		}
		big := strings.Repeat("x", 60<<10)
		for range 12 {
			add(t, s, item("big", `"`+big+`"`, time.Hour))
		}
		if page, more, err := s.List(t.Context(), "big", "", 100); err != nil || len(page) != 9 || !more {
			t.Errorf("%d large entries on a page, more %t, %v", len(page), more, err)
		}
	})
}

func TestFullUserSchedulesNothing(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb *redis.Client) {
		s := New(rdb, "n", toList(rdb), Options{Budget: patience, MaxPerUser: 3})
		add(t, s, item("a", `1`, time.Hour), item("a", `2`, time.Hour))
		var full *FullError
		if _, err := s.Add(t.Context(), []Item{item("b", `1`, time.Hour), item("a", `3`, time.Hour), item("a", `4`, time.Hour)}, Fence{}); !errors.As(err, &full) || full.UserID != "a" {
			t.Fatalf("got %v", err)
		}
		if n := rdb.Exists(t.Context(), userKey("b")).Val(); n != 0 {
			t.Error("a part of the request was scheduled")
		}
		add(t, s, item("a", `3`, time.Hour), item("b", `1`, time.Hour))
	})
}

func TestRepeatedAddReturnsTheFirstOutcome(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb *redis.Client) {
		s := New(rdb, "n", toList(rdb), Options{Budget: patience})
		items := []Item{item("a", `1`, time.Millisecond), item("b", `2`, time.Hour)}
		token := func(n int64) {
			t.Helper()
			if err := rdb.HSet(t.Context(), "record", "token", n).Err(); err != nil {
				t.Fatal(err)
			}
		}
		token(1)
		first, err := s.Add(t.Context(), items, Fence{"record", 1})
		if err != nil {
			t.Fatal(err)
		}
		stop := run(t, s)
		await(t, rdb, 1)
		stop()
		token(2)
		if _, err := s.Add(t.Context(), items, Fence{"record", 1}); !errors.Is(err, ErrFenced) {
			t.Errorf("an earlier attempt: %v", err)
		}
		again, err := s.Add(t.Context(), items, Fence{"record", 2})
		if err != nil || !slices.Equal(again, first) {
			t.Errorf("a later attempt: %v, %v; want %v", again, err, first)
		}
		if n := rdb.Exists(t.Context(), userKey("a")).Val(); n != 0 {
			t.Error("a delivered entry was scheduled again")
		}
	})
}

func TestParsesIDs(t *testing.T) {
	t.Parallel()
	for id, ok := range map[string]bool{
		"1764000000017-1764000000017123000-a":     true,
		"1764000000017-1764000000017123000-a-b@c": true,
		"1764000000017-1764000000017123000-":      false,
		"1764000000017-1764000000017123000-a:b":   false,
		"176400000001-1764000000017123000-a":      false,
		"1764000000017-176400000001712300-a":      false,
		" 1764000000017-1764000000017123000-a":    false,
		"1764000000017-1764000000017123000-a\n":   false,
		"":                                        false,
	} {
		if _, _, got := ParseID(id); got != ok {
			t.Errorf("%q: %t", id, got)
		}
	}
}
