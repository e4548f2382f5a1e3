package foreign

import (
	"testing"
	"time"

	"herald/internal/testing/redistest"
	"herald/sessions"
)

// TestNotifications: with a real Redis, whatever ends a session is heard on the
// pattern, and what happens to other keys is not.
func TestNotifications(t *testing.T) {
	server := redistest.Start(t, "--notify-keyspace-events", "Kgx$", "--hz", "100")
	rdb := server.Client()
	s := newStore(rdb, JSON, Options{Prefix: "app[1]*:"})
	if on, err := s.Notified(t.Context()); !on || err != nil {
		t.Errorf("notified: %t, %v", on, err)
	}
	ps := rdb.PSubscribe(t.Context(), s.Pattern(0))
	defer func() { _ = ps.Close() }()
	if _, err := ps.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	next := func() (handle string) {
		t.Helper()
		for {
			m, err := ps.ReceiveMessage(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if handle, ok := s.Changed(m.Channel, m.Payload); ok {
				return handle
			}
		}
	}
	key := func(name string) string { return "app[1]*:" + name }
	set(t, rdb, "app1x:not-a-session", "{}", 0)
	set(t, rdb, key("bad id"), "{}", 0)
	for _, name := range []string{"deleted-session", "unlinked-session", "expired-session", "rewritten-session"} {
		set(t, rdb, key(name), "{}", time.Hour)
		if got := next(); got != sessions.Handle(name) {
			t.Errorf("set %s: heard of %s", name, got)
		}
	}
	rdb.Del(t.Context(), key("deleted-session"))
	rdb.Expire(t.Context(), key("unlinked-session"), 2*time.Hour) // says nothing
	rdb.Unlink(t.Context(), key("unlinked-session"))
	rdb.PExpire(t.Context(), key("expired-session"), time.Millisecond)
	for _, name := range []string{"deleted-session", "unlinked-session", "expired-session"} {
		if got := next(); got != sessions.Handle(name) {
			t.Errorf("%s: heard of another", name)
		}
	}
}

func TestNotified(t *testing.T) {
	rdb := redistest.Start(t).Client()
	s := newStore(rdb, JSON, Options{})
	for flags, want := range map[string]bool{"": false, "Egx": false, "Kg": false, "Kx": false, "K$": false, "Kgx": true, "KA": true, "AKE": true} {
		if err := rdb.ConfigSet(t.Context(), "notify-keyspace-events", flags).Err(); err != nil {
			t.Fatal(err)
		}
		if on, err := s.Notified(t.Context()); on != want || err != nil {
			t.Errorf("%q: %t, %v", flags, on, err)
		}
	}
}
