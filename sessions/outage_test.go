package sessions

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"herald/internal/redisx"
	"herald/internal/testing/redistest"
)

// operations is everything that asks Redis, on one session.
func operations(ctx context.Context, s *Store, id string) map[string]func() error {
	handle := Handle(id)
	return map[string]func() error{
		"Create":    func() error { _, _, err := s.Create(ctx, "42", nil); return err },
		"Use":       func() error { _, err := s.Use(ctx, id); return err },
		"Peek":      func() error { _, err := s.Peek(ctx, handle); return err },
		"Update":    func() error { _, err := s.Update(ctx, handle, data{"a": json.RawMessage(`1`)}); return err },
		"Revoke":    func() error { return s.Revoke(ctx, handle) },
		"RevokeAll": func() error { _, err := s.RevokeAll(ctx, "42"); return err },
		"List":      func() error { _, err := s.List(ctx, "42"); return err },
		"Expiries":  func() error { _, err := s.Expiries(ctx, []Ref{{Handle: handle}}); return err },
	}
}

// wantOutage asserts that every operation says 503 in time, and none "not logged in".
func wantOutage(t *testing.T, s *Store, id string, within time.Duration) {
	t.Helper()
	for name, operation := range operations(t.Context(), s, id) {
		began := time.Now()
		err := operation()
		if took := time.Since(began); took > within {
			t.Errorf("%s took %v", name, took)
		}
		if !errors.Is(err, redisx.ErrUnavailable) || errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// slack is what a loaded machine may take beyond the budget; go-redis's own
// timeouts of 3 and 5 s are far above it.
const slack = time.Second

func TestRedisStopped(t *testing.T) {
	server := redistest.Start(t)
	rdb := server.Client()
	warm, cold := New(rdb, Options{}), New(server.Client(), Options{})
	id, _ := create(t, New(rdb, patient(Options{})), "42", nil)
	server.Stop()
	wantOutage(t, warm, id, 400*time.Millisecond+slack)
	wantOutage(t, cold, id, 400*time.Millisecond+slack)
	wantBrief(t, New(rdb, Options{Budget: 20 * time.Millisecond}), id)
	server.Continue()
	again := New(server.Client(), patient(Options{}))
	for name, operation := range operations(t.Context(), again, id) {
		if err := operation(); errors.Is(err, redisx.ErrUnavailable) {
			t.Errorf("%s after the outage: %v", name, err)
		}
	}
}

// wantBrief asserts that a budget other than the default counts: the quickest of
// a few tries, since one may be held up by the machine, is well under 400 ms.
func wantBrief(t *testing.T, s *Store, id string) {
	t.Helper()
	quickest := time.Hour
	for range 5 {
		began := time.Now()
		_, err := s.Use(t.Context(), id)
		wantErr(t, "use on a brief budget", err, redisx.ErrUnavailable)
		quickest = min(quickest, time.Since(began))
	}
	if quickest > 200*time.Millisecond {
		t.Errorf("a budget of 20 ms took %v", quickest)
	}
}

func TestRedisDown(t *testing.T) {
	server := redistest.Start(t)
	rdb := server.Client()
	id, _ := create(t, New(rdb, patient(Options{})), "42", nil)
	server.Kill()
	wantOutage(t, New(rdb, Options{}), id, 400*time.Millisecond+slack)
}

func TestRedisRefuses(t *testing.T) {
	m, _, s := onMini(t, Options{})
	id, _ := create(t, s, "42", nil)
	for _, refusal := range []string{
		"LOADING Redis is loading the dataset in memory",
		"NOAUTH Authentication required.",
		"READONLY You can't write against a read only replica.",
		"MISCONF Redis is configured to save RDB snapshots",
	} {
		m.SetError(refusal)
		wantOutage(t, s, id, slack)
	}
	m.SetError("")
	if _, err := s.Use(t.Context(), id); err != nil {
		t.Errorf("after the refusals: %v", err)
	}
}

// Out of memory nothing new is stored, by halves least of all; reading and
// logging out go on.
func TestRedisOutOfMemory(t *testing.T) {
	rdb := redistest.Start(t).Client()
	s := New(rdb, patient(Options{}))
	id, one := create(t, s, "42", nil)
	create(t, s, "42", nil)
	memory := func(limit string) {
		if err := rdb.ConfigSet(t.Context(), "maxmemory", limit).Err(); err != nil {
			t.Fatal(err)
		}
	}
	memory("1")
	_, _, err := s.Create(t.Context(), "43", nil)
	wantErr(t, "create", err, redisx.ErrUnavailable)
	_, err = s.Use(t.Context(), id)
	wantErr(t, "use", err, redisx.ErrUnavailable)
	_, err = s.Update(t.Context(), one.Handle, data{"a": json.RawMessage(`1`)})
	wantErr(t, "update", err, redisx.ErrUnavailable)
	if n := rdb.DBSize(t.Context()).Val(); n != 3 {
		t.Errorf("%d keys, want 3", n)
	}
	checkIndex(t, rdb)
	if got, err := s.Peek(t.Context(), one.Handle); err != nil || !sameSession(got, one) {
		t.Errorf("peek: %+v, %v; want %+v", got, err, one)
	}
	if err := s.Revoke(t.Context(), one.Handle); err != nil {
		t.Errorf("revoke: %v", err)
	}
	if n, err := s.RevokeAll(t.Context(), "42"); n != 1 || err != nil {
		t.Errorf("revoke all: %d, %v", n, err)
	}
	memory("0")
}

func TestCallerGaveUp(t *testing.T) {
	_, _, s := onMini(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Use(ctx, newID())
	wantErr(t, "use", err, redisx.ErrUnavailable)
	wantErr(t, "use", err, context.Canceled)
}
