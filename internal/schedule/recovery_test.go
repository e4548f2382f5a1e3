package schedule

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/internal/redisx"
	"herald/internal/testing/redistest"
)

// eachOnce checks that exactly these ids were delivered, each once.
func eachOnce(t *testing.T, got, ids []string) {
	t.Helper()
	got, ids = slices.Clone(got), slices.Clone(ids)
	slices.Sort(got)
	slices.Sort(ids)
	if !slices.Equal(got, ids) {
		t.Errorf("%d delivered, %d of them distinct; want %d, each once", len(got), len(slices.Compact(got)), len(ids))
	}
}

// A new entry wakes a worker that would sleep for longer.
func TestNewEntryWakesTheWorker(t *testing.T) {
	t.Parallel()
	rdb := client(t, redistest.Start(t).Addr)
	s := New(rdb, "n", toList(rdb), Options{Budget: patience, Recheck: time.Hour})
	run(t, s)
	for i := range 20 {
		add(t, s, item("a", `1`, time.Duration(i%3)*20*time.Millisecond+time.Millisecond))
		await(t, rdb, i+1)
	}
}

// A node stops during a delivery. Another one claims its shard after the lease has
// ended, and the first delivers nothing when it continues.
func TestStoppedNodeDelaysItsShardByOneLease(t *testing.T) {
	t.Parallel()
	rdb := client(t, redistest.Start(t).Addr)
	list := toList(rdb)
	claimed, goOn, result := make(chan []Due), make(chan struct{}), make(chan int, 1)
	stopped := New(rdb, "stopped", func(ctx context.Context, due []Due) (int, error) {
		claimed <- due
		<-goOn
		n, err := list(ctx, due)
		result <- n
		return n, err
	}, Options{Budget: patience, Lease: time.Second})
	ids := add(t, stopped, item("a", `1`, time.Millisecond), item("a", `2`, time.Millisecond), item("a", `3`, time.Hour))
	stop := run(t, stopped)
	if due := <-claimed; len(due) != 2 {
		t.Fatalf("claimed %d", len(due))
	}

	alive := New(rdb, "alive", list, Options{Budget: patience, Lease: time.Second})
	b, err := alive.claim(t.Context(), shardOf("a"))
	if err != nil || b.ours {
		t.Fatalf("a claimed shard was claimed: %+v, %v", b, err)
	}
	run(t, alive)
	eachOnce(t, await(t, rdb, 2), ids[:2])
	close(goOn)
	if n := <-result; n != 0 {
		t.Errorf("the stopped node delivered %d more", n)
	}
	stop()
	eachOnce(t, delivered(t, rdb), ids[:2])
}

// Several nodes share the work, and each entry is delivered once.
func TestNodesShareTheWork(t *testing.T) {
	t.Parallel()
	rdb := client(t, redistest.Start(t).Addr)
	var nodes []*Scheduler
	for i := range 4 {
		nodes = append(nodes, New(rdb, fmt.Sprint("n", i), toList(rdb), Options{Budget: patience}))
		run(t, nodes[i])
	}
	var ids []string
	for range 4 {
		var items []Item
		for i := range 1000 {
			items = append(items, item(fmt.Sprint("u", i%100), `1`, 300*time.Millisecond))
		}
		ids = append(ids, add(t, nodes[0], items...)...)
	}
	got := await(t, rdb, len(ids))
	eachOnce(t, got, ids)
	last := map[string]string{}
	for _, id := range got {
		_, user, _ := ParseID(id)
		if id < last[user] {
			t.Fatalf("%s got %s after %s", user, id, last[user])
		}
		last[user] = id
	}
	empty(t, rdb)
}

// An entry that Redis refuses does not block the others, and is kept.
func TestUndeliverableEntryIsPostponed(t *testing.T) {
	t.Parallel()
	rdb := client(t, redistest.Start(t).Addr)
	list := toList(rdb)
	s := New(rdb, "n", func(ctx context.Context, due []Due) (int, error) {
		for _, d := range due {
			if d.Draft.UserID == "bad" {
				return 0, fmt.Errorf("deliver: %w", rdb.Get(ctx, "delivered").Err()) // WRONGTYPE
			}
		}
		return list(ctx, due)
	}, Options{Budget: patience})
	if err := rdb.RPush(t.Context(), "delivered", "first").Err(); err != nil {
		t.Fatal(err)
	}
	// Users of the same shard.
	var good []string
	for i := 0; len(good) < 5; i++ {
		if u := fmt.Sprint("u", i); shardOf(u) == shardOf("bad") {
			good = append(good, u)
		}
	}
	ids := add(t, s, item("bad", `1`, time.Millisecond), item("bad", `2`, 2*time.Millisecond))
	broken := add(t, s, item(good[0], `0`, time.Millisecond))[0]
	if err := rdb.HSet(t.Context(), userKey(good[0]), broken, "no entry").Err(); err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, u := range good {
		want = append(want, add(t, s, item(u, `1`, 3*time.Millisecond))...)
	}
	run(t, s)
	eachOnce(t, await(t, rdb, 1+len(want)), append(want, "first"))
	for _, id := range append(ids, broken) {
		_, user, _ := ParseID(id)
		at := rdb.ZScore(t.Context(), dueKey(shardOf("bad")), id).Val()
		if ahead := time.UnixMilli(int64(at)).Sub(rdb.Time(t.Context()).Val()); !rdb.HExists(t.Context(), userKey(user), id).Val() || ahead < time.Second {
			t.Errorf("%s is due in %v", id, ahead)
		}
	}
	if st := s.Stats(); st.Failed != 3 {
		t.Errorf("counted %d failures, want 3", st.Failed)
	}
}

// Redis is killed and restarted while entries come due. With an append-only file no
// acknowledged entry is lost, and none is delivered twice.
func TestNoEntryIsLostWhenRedisRestarts(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	rdb := client(t, r.Addr)
	s := New(rdb, "n", toList(rdb), Options{Budget: 2 * time.Second, Recheck: 50 * time.Millisecond})
	run(t, s)
	var ids []string
	failures := 0
	for i := range 300 {
		placed, err := s.Add(t.Context(), []Item{item(fmt.Sprint("u", i%20), `1`, time.Duration(i%50)*10*time.Millisecond)}, Fence{})
		if err == nil {
			ids = append(ids, placed[0].ID)
		} else if failures++; !errors.Is(err, redisx.ErrUnavailable) {
			t.Fatal(err)
		}
		if i%100 == 50 {
			r.Kill()
			if _, err := s.Add(t.Context(), []Item{item("u", `1`, time.Hour)}, Fence{}); !errors.Is(err, redisx.ErrUnavailable) {
				t.Errorf("without Redis: %v", err)
			}
			r.Restart()
		}
	}
	eachOnce(t, await(t, rdb, len(ids)), ids)
	t.Logf("%d acknowledged, %d refused", len(ids), failures)
}

// A request that a stalled Redis executes after the publisher got 503 is not scheduled.
func TestRefusedEntryIsNotScheduledLater(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	rdb := client(t, r.Addr)
	s := New(rdb, "n", toList(rdb), Options{Budget: 200 * time.Millisecond})
	if _, _, _, err := s.peek(t.Context()); err != nil {
		t.Fatal(err)
	}
	add(t, s, item("a", `1`, time.Hour))
	before := evals(t, r)
	r.Stop()
	if _, err := s.Add(t.Context(), []Item{item("a", `2`, time.Hour)}, Fence{}); !errors.Is(err, redisx.ErrUnavailable) {
		t.Fatalf("stalled: %v", err)
	}
	time.Sleep(300 * time.Millisecond) // the publisher has its answer, and the deadline has passed
	r.Continue()
	for deadline := time.Now().Add(patience); evals(t, r) == before; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the script queued in the stalled Redis never ran")
		}
	}
	if n := rdb.HLen(t.Context(), userKey("a")).Val(); n != 1 {
		t.Errorf("%d are scheduled, want 1", n)
	}
	// After a clock step the scheduler learns the time from the refusal.
	s.clock.learn(time.Unix(1000, 0).UnixMilli())
	add(t, s, item("a", `3`, time.Hour))
}

// evals returns the number of scripts that Redis has run.
func evals(t *testing.T, r *redistest.Server) (n int) {
	t.Helper()
	rdb := client(t, r.Addr)
	defer rdb.Close()
	info, err := rdb.Info(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(info) {
		if rest, ok := strings.CutPrefix(line, "cmdstat_evalsha:calls="); ok {
			_, _ = fmt.Sscanf(rest, "%d", &n)
		}
	}
	return n
}

// While Redis is out of memory nothing is scheduled or delivered. Accepted entries are
// delivered afterwards.
func TestEntriesWaitWhileRedisIsOutOfMemory(t *testing.T) {
	t.Parallel()
	rdb := client(t, redistest.Start(t).Addr)
	s := New(rdb, "n", toList(rdb), Options{Budget: patience, Recheck: 20 * time.Millisecond})
	memory := func(limit string) {
		t.Helper()
		if err := rdb.ConfigSet(t.Context(), "maxmemory", limit).Err(); err != nil {
			t.Fatal(err)
		}
	}
	ids := add(t, s, item("a", `1`, time.Millisecond), item("b", `1`, time.Hour))
	memory("1")
	if _, err := s.Add(t.Context(), []Item{item("c", `1`, time.Hour)}, Fence{}); !errors.Is(err, redisx.ErrUnavailable) {
		t.Errorf("without memory: %v", err)
	}
	if err := s.Cancel(t.Context(), ids[1]); err != nil {
		t.Errorf("cancel without memory: %v", err)
	}
	run(t, s)
	time.Sleep(100 * time.Millisecond)
	memory("0")
	eachOnce(t, await(t, rdb, 1), ids[:1])
	empty(t, rdb)
}

func TestRefusesWithoutEnoughReplicas(t *testing.T) {
	t.Parallel()
	rdb := client(t, redistest.Start(t).Addr)
	s := New(rdb, "n", toList(rdb), Options{Budget: patience, WaitReplicas: 1, WaitTimeout: 20 * time.Millisecond})
	if _, err := s.Add(t.Context(), []Item{item("a", `1`, time.Hour)}, Fence{}); !errors.Is(err, redisx.ErrUnavailable) {
		t.Errorf("without a replica: %v", err)
	}
}

// A request whose pending entries were taken back in one shard is scheduled again: the
// entries that are left in other shards are not delivered beside the new ones.
func TestARetryWhileHalfIsTakenBackSchedulesEachOnce(t *testing.T) {
	rdb := client(t, redistest.Start(t).Addr)
	s := New(rdb, "n", toList(rdb), Options{Recheck: 20 * time.Millisecond})
	items := []Item{item("a", "1", time.Second), item("b", "2", time.Second)}
	if shardOf("a") == shardOf("b") {
		t.Fatal("the users are in one shard")
	}
	rdb.HSet(t.Context(), "record", "token", 1)
	first, err := s.AddPending(t.Context(), items, Fence{"record", 1}, "commit")
	if err != nil {
		t.Fatal(err)
	}
	for i, user := range []string{"a", "b"} { // the time to confirm them is over
		rdb.ZAdd(t.Context(), dueKey(shardOf(user)), redis.Z{Score: 1, Member: first[i].ID})
	}
	if _, err := s.claim(t.Context(), shardOf("a")); err != nil {
		t.Fatal(err)
	}
	again, err := s.AddPending(t.Context(), items, Fence{"record", 1}, "commit")
	if err != nil {
		t.Fatal(err)
	}
	rdb.Set(t.Context(), "commit", 1, 0)
	s.Confirm(t.Context(), again, "commit")
	run(t, s)
	empty(t, rdb)
	if got := delivered(t, rdb); len(got) != 2 {
		t.Errorf("delivered %q, want each once", got)
	}
}

// The reason of a refusal does not depend on replicas: nothing was written.
func TestAFullScheduleIsReportedWithoutReplicas(t *testing.T) {
	rdb := client(t, redistest.Start(t).Addr)
	s := New(rdb, "n", toList(rdb), Options{Budget: patience, MaxPerUser: 1, WaitReplicas: 1, WaitTimeout: 20 * time.Millisecond})
	_, _ = s.Add(t.Context(), []Item{item("a", "1", time.Hour)}, Fence{})
	var full *FullError
	if _, err := s.Add(t.Context(), []Item{item("a", "2", time.Hour)}, Fence{}); !errors.As(err, &full) {
		t.Errorf("got %v, want a FullError", err)
	}
}
