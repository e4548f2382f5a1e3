package broker

import (
	"slices"
	"testing"

	"github.com/redis/go-redis/v9"

	"herald/notify"
)

// What is quiet is stored and not announced; what is skipped is neither, and yet
// part of the answer that an idempotency key stands for.
func TestQuietAndSkipped(t *testing.T) {
	onBoth(t, func(t *testing.T, rdb *redis.Client) {
		b := New(rdb, Options{Budget: patience})
		ear := rdb.PSubscribe(t.Context(), "user:*:events")
		defer func() { _ = ear.Close() }()
		if _, err := ear.Receive(t.Context()); err != nil {
			t.Fatal(err)
		}
		message := []byte(`1`)
		all := []notify.Draft{
			{UserID: "a", Message: message, Quiet: true},
			{UserID: "b", Message: message, Skip: notify.SkipMuted},
			{UserID: "c", Message: message},
			{UserID: "d", Message: message, Skip: notify.SkipQuiet, Ephemeral: true},
			{UserID: "a", Message: message},
		}
		idem := Idempotency{Client: "c", Key: "k", Print: "p"}
		first, replayed, err := b.Publish(t.Context(), all, idem)
		if err != nil || replayed {
			t.Fatal(replayed, err)
		}
		want := []struct {
			stored bool
			nodes  int
			skip   notify.Skip
		}{{true, 0, 0}, {false, 0, notify.SkipMuted}, {true, 1, 0}, {false, 0, notify.SkipQuiet}, {true, 1, 0}}
		for i, w := range want {
			if r := first[i]; (r.ID != 0) != w.stored || r.Nodes != w.nodes || r.Skip != w.skip {
				t.Errorf("receipt %d: %+v, want %+v", i, r, w)
			}
		}
		for _, channel := range []string{"user:c:events", "user:a:events"} {
			m, err := ear.ReceiveMessage(t.Context())
			if err != nil || m.Channel != channel {
				t.Fatalf("announced %v, %v; want %s", m, err, channel)
			}
			if id, _, _ := notify.ParseStored(m.Payload); channel == "user:a:events" && id != first[4].ID {
				t.Errorf("announced %s, want id %d", m.Payload, first[4].ID)
			}
		}
		if a := readAll(t, b, "a"); len(a) != 2 || a[0].ID != first[0].ID || a[1].Prev != first[0].ID {
			t.Errorf("a's log: %+v", a)
		}
		for _, user := range []string{"b", "d"} {
			if log := readAll(t, b, user); len(log) != 0 {
				t.Errorf("%s's log: %+v", user, log)
			}
		}
		for i := range all { // what is wanted now does not count
			all[i].Quiet, all[i].Skip = false, 0
		}
		again, replayed, err := b.Publish(t.Context(), all, idem)
		if err != nil || !replayed || !slices.Equal(again, first) {
			t.Errorf("replayed %t, %v: %+v, want %+v", replayed, err, again, first)
		}
	})
}
