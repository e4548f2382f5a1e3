package sessions

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/internal/testing/redistest"
)

const hour, day = time.Hour, 24 * time.Hour

func TestSlidesUntilTheAbsoluteEnd(t *testing.T) {
	m, rdb, s := onMini(t, Options{TTL: 24 * hour, MaxAge: 5 * day})
	id, session := create(t, s, "42", nil)
	now := start
	for now.Add(20 * hour).Before(start.Add(5 * day)) {
		now = now.Add(20 * hour)
		m.SetTime(now)
		used, err := s.Use(t.Context(), id)
		if err != nil {
			t.Fatalf("after %v: %v", now.Sub(start), err)
		}
		want := now.Add(24 * hour)
		if want.After(session.AbsoluteExpiresAt) {
			want = session.AbsoluteExpiresAt
		}
		if !used.ExpiresAt.Equal(want) || !used.LastUsedAt.Equal(now) || !used.AbsoluteExpiresAt.Equal(start.Add(5*day)) {
			t.Errorf("after %v: %+v", now.Sub(start), used)
		}
		checkIndex(t, rdb)
	}
	m.SetTime(start.Add(5*day - time.Millisecond))
	if _, err := s.Use(t.Context(), id); err != nil {
		t.Errorf("a millisecond before the end: %v", err)
	}
	m.SetTime(start.Add(5 * day))
	_, err := s.Use(t.Context(), id)
	wantErr(t, "use at the absolute end", err, ErrNotFound)
	if keys := m.Keys(); len(keys) != 0 {
		t.Errorf("left behind: %q", keys)
	}
}

// Newest means created last, whichever was used last.
func TestListIsNewestFirst(t *testing.T) {
	m, _, s := onMini(t, Options{})
	oldest, _ := create(t, s, "42", nil)
	m.SetTime(start.Add(hour))
	middle, _ := create(t, s, "42", nil)
	m.SetTime(start.Add(2 * hour))
	newest, _ := create(t, s, "42", nil)
	m.SetTime(start.Add(3 * hour))
	if _, err := s.Use(t.Context(), middle); err != nil {
		t.Fatal(err)
	}
	list, err := s.List(t.Context(), "42")
	if err != nil || len(list) != 3 {
		t.Fatalf("%d sessions, %v", len(list), err)
	}
	for i, id := range []string{newest, middle, oldest} {
		if list[i].Handle != Handle(id) {
			t.Errorf("place %d: created at %v", i, list[i].CreatedAt)
		}
	}
}

func TestIdleSessionEnds(t *testing.T) {
	m, _, s := onMini(t, Options{})
	id, session := create(t, s, "42", nil)
	m.SetTime(start.Add(23 * hour))
	// Neither of these is a use.
	if _, err := s.Peek(t.Context(), session.Handle); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Update(t.Context(), session.Handle, data{"a": json.RawMessage(`1`)}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.List(t.Context(), "42"); err != nil {
		t.Fatal(err)
	}
	m.SetTime(start.Add(24 * hour))
	_, err := s.Use(t.Context(), id)
	wantErr(t, "use after 24 h", err, ErrNotFound)
	_, err = s.Update(t.Context(), session.Handle, data{"a": json.RawMessage(`1`)})
	wantErr(t, "update after 24 h", err, ErrNotFound)
	if keys := m.Keys(); len(keys) != 0 {
		t.Errorf("left behind: %q", keys)
	}
}

// The naive index is a set whose expiry is that of its last write: it is gone
// while a session slides on.
func TestIndexDoesNotForget(t *testing.T) {
	m, rdb, s := onMini(t, Options{})
	idle, _ := create(t, s, "42", nil)
	id, _ := create(t, s, "42", nil)
	for n := range 10 {
		m.SetTime(start.Add(time.Duration(n+1) * 12 * hour))
		if _, err := s.Use(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		checkIndex(t, rdb)
	}
	if handles, _ := m.ZMembers(indexKey("42")); len(handles) != 1 || handles[0] == Handle(idle) {
		t.Errorf("the idle session was not pruned: %q", handles)
	}
	if n, err := s.RevokeAll(t.Context(), "42"); n != 1 || err != nil {
		t.Errorf("revoked %d, %v", n, err)
	}
	_, err := s.Use(t.Context(), id)
	wantErr(t, "use after revoke all", err, ErrNotFound)
}

func TestIndexDoesNotOutlive(t *testing.T) {
	m, rdb, s := onMini(t, Options{TTL: 24 * hour})
	short := New(rdb, patient(Options{TTL: hour}))
	_, long := create(t, s, "42", nil)
	create(t, short, "42", nil)
	checkIndex(t, rdb)
	if err := s.Revoke(t.Context(), long.Handle); err != nil {
		t.Fatal(err)
	}
	checkIndex(t, rdb) // now an hour
	m.SetTime(start.Add(hour))
	if m.Exists(indexKey("42")) {
		t.Error("the index outlived its last session")
	}
}

func TestRedisRemovesAllByItself(t *testing.T) {
	rdb := redistest.Start(t).Client()
	const ttl = 150 * time.Millisecond
	s := New(rdb, patient(Options{TTL: ttl}))
	for !usedForTwice(t, s, ttl) {
	}
	if n := rdb.ZCard(t.Context(), indexKey("42")).Val(); n > 1 {
		t.Errorf("%d handles in the index, want the used one at most", n)
	}
	deadline := time.Now().Add(10 * time.Second)
	for rdb.DBSize(t.Context()).Val() > 0 && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond)
	}
	if keys := rdb.Keys(t.Context(), "*").Val(); len(keys) != 0 {
		t.Errorf("left behind: %q", keys)
	}
}

// usedForTwice uses one of two sessions for twice its TTL. It reports false if
// the machine paused for so long that the session rightly ended meanwhile.
func usedForTwice(t *testing.T, s *Store, ttl time.Duration) bool {
	t.Helper()
	began := time.Now() // before the last call that slid: it lives ttl from then at least
	id, first := create(t, s, "42", nil)
	create(t, s, "42", nil)
	for last := first; last.LastUsedAt.Sub(first.CreatedAt) < 2*ttl; {
		asked := time.Now()
		used, err := s.Use(t.Context(), id)
		if err != nil && time.Since(began) >= ttl {
			return false
		}
		if err != nil {
			t.Fatalf("%v after the last use: %v", time.Since(began), err)
		}
		began, last = asked, used
	}
	return true
}

func TestClockSteps(t *testing.T) {
	m, rdb, s := onMini(t, Options{})
	id, session := create(t, s, "42", nil)
	for _, step := range []time.Duration{2 * hour, -3 * hour, 10 * hour, -20 * hour} {
		m.SetTime(start.Add(step))
		used, err := s.Use(t.Context(), id)
		if err != nil {
			t.Fatalf("clock at %v: %v", step, err)
		}
		if !used.ExpiresAt.Equal(start.Add(step).Add(24*hour)) || !used.AbsoluteExpiresAt.Equal(session.AbsoluteExpiresAt) {
			t.Errorf("clock at %v: %+v", step, used)
		}
		checkIndex(t, rdb)
	}
	m.SetTime(start.Add(30 * day))
	_, err := s.Use(t.Context(), id)
	wantErr(t, "use after a step to the absolute end", err, ErrNotFound)
	m.SetTime(start)
	_, err = s.Use(t.Context(), id)
	wantErr(t, "use after the step was undone", err, ErrNotFound)
}

// A handle whose score has passed is dead for good: were its key left where it
// is, a clock that steps back would revive a session that RevokeAll cannot find.
func TestPrunedHandleCannotRevive(t *testing.T) {
	onBoth(t, Options{}, func(t *testing.T, rdb *redis.Client, s *Store) {
		id, session := create(t, s, "42", nil)
		rdb.ZAdd(t.Context(), indexKey("42"), redis.Z{Score: 1000, Member: session.Handle})
		create(t, s, "42", nil)
		_, err := s.Use(t.Context(), id)
		wantErr(t, "use of a pruned session", err, ErrNotFound)
		checkIndex(t, rdb)
	})
}

func TestManyDeadHandlesArePruned(t *testing.T) {
	onBoth(t, Options{}, func(t *testing.T, rdb *redis.Client, s *Store) {
		dead := make([]redis.Z, 1200)
		for i := range dead {
			dead[i] = redis.Z{Score: 1000, Member: Handle(newID())}
		}
		_, session := create(t, s, "42", nil)
		rdb.ZAdd(t.Context(), indexKey("42"), dead...)
		list, err := s.List(t.Context(), "42")
		if err != nil || len(list) != 1 || list[0].Handle != session.Handle {
			t.Errorf("list: %+v, %v", list, err)
		}
		if n := rdb.ZCard(t.Context(), indexKey("42")).Val(); n != 1 {
			t.Errorf("%d handles left", n)
		}
		rdb.ZAdd(t.Context(), indexKey("42"), dead...)
		for range 3 {
			create(t, s, "42", nil)
		}
		if n := rdb.ZCard(t.Context(), indexKey("42")).Val(); n != 4 {
			t.Errorf("%d handles left after three touches", n)
		}
		checkIndex(t, rdb)
	})
}
