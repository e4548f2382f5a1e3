package broker

import (
	"errors"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"

	"herald/internal/redisx"
	"herald/internal/testing/redistest"
	"herald/notify"
)

// held puts a ticket for each draft into its user's hash.
func held(t testing.TB, rdb *redis.Client, drafts []notify.Draft, fields ...string) []Ticket {
	t.Helper()
	var tickets []Ticket
	for i, d := range drafts {
		ticket := Ticket{Key: "held:" + d.UserID, Field: fields[i]}
		tickets = append(tickets, ticket)
		if err := rdb.HSet(t.Context(), ticket.Key, ticket.Field, "1").Err(); err != nil {
			t.Fatal(err)
		}
	}
	return tickets
}

func TestTicketsAdmitOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, rdb *redis.Client) {
		b := New(rdb, Options{Budget: patience, WaitReplicas: 1}) // there is none
		drafts := []notify.Draft{draft("a", `1`), draft("b", `2`), draft("a", `3`)}
		drafts[1].Ephemeral = true
		tickets := held(t, rdb, drafts, "x", "y", "z")
		if err := rdb.HDel(t.Context(), "held:a", "x").Err(); err != nil {
			t.Fatal(err)
		}
		r, err := b.PublishTickets(t.Context(), drafts, tickets)
		if err != nil || r[0] != (Receipt{LeftOut: true}) || r[1] != (Receipt{}) || r[2].ID == 0 || r[2].Nodes != 0 {
			t.Fatalf("receipts %+v, %v; want the first left out", r, err)
		}
		again, err := b.PublishTickets(t.Context(), drafts, tickets)
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range again {
			if r != (Receipt{LeftOut: true}) {
				t.Errorf("again: receipt %d is %+v", i, r)
			}
		}
		if log := readAll(t, b, "a"); len(log) != 1 || log[0].ID != r[2].ID {
			t.Errorf("log %+v", log)
		}
		if _, err := b.PublishTickets(t.Context(), drafts, tickets[:2]); err == nil {
			t.Error("too few tickets were enough")
		}
	})
}

// Many publishers with the same tickets at once publish each once.
func TestTicketsAdmitOneOfManyPublishers(t *testing.T) {
	rdb := client(t, redistest.Start(t).Addr)
	b := New(rdb, Options{Budget: patience})
	var drafts []notify.Draft
	var fields []string
	for i := range 50 {
		drafts = append(drafts, draft("u", `1`))
		fields = append(fields, string(rune('A'+i)))
	}
	tickets := held(t, rdb, drafts, fields...)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if _, err := b.PublishTickets(t.Context(), drafts, tickets); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if log := readAll(t, b, "u"); len(log) != len(drafts) {
		t.Errorf("%d in the log, want %d", len(log), len(drafts))
	}
}

// An append that Redis refuses for want of memory keeps the ticket.
func TestTicketsOutliveARefusedAppend(t *testing.T) {
	rdb := client(t, redistest.Start(t).Addr)
	b := New(rdb, Options{Budget: patience})
	drafts := []notify.Draft{draft("u", `1`)}
	tickets := held(t, rdb, drafts, "x")
	memory := func(limit string) {
		t.Helper()
		if err := rdb.ConfigSet(t.Context(), "maxmemory", limit).Err(); err != nil {
			t.Fatal(err)
		}
	}
	memory("1")
	if _, err := b.PublishTickets(t.Context(), drafts, tickets); !errors.Is(err, redisx.ErrUnavailable) {
		t.Fatalf("without memory: %v", err)
	}
	memory("0")
	if r, err := b.PublishTickets(t.Context(), drafts, tickets); err != nil || r[0].ID == 0 {
		t.Errorf("with memory again: %+v, %v", r, err)
	}
}

// What Redis refuses for one user keeps nothing from those before: they are
// stored, announced and done with.
func TestTicketsBeforeARefusedOneAreGood(t *testing.T) {
	rdb := client(t, redistest.Start(t).Addr)
	b := New(rdb, Options{Budget: patience})
	drafts := []notify.Draft{draft("good", `1`), draft("bad", `2`)}
	tickets := held(t, rdb, drafts, "x", "y")
	if err := rdb.Set(t.Context(), logKey("bad"), "not a stream", 0).Err(); err != nil {
		t.Fatal(err)
	}
	sub := rdb.Subscribe(t.Context(), channel("good"))
	defer sub.Close()
	if _, err := sub.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := b.PublishTickets(t.Context(), drafts, tickets); !errors.Is(err, redisx.ErrUnavailable) {
			t.Fatalf("published on a key of another type: %v", err)
		}
	}
	if _, err := sub.ReceiveMessage(t.Context()); err != nil {
		t.Error(err)
	}
	if log := readAll(t, b, "good"); len(log) != 1 {
		t.Errorf("%d in the log, want 1", len(log))
	}
	if n := rdb.HLen(t.Context(), "held:bad").Val(); n != 1 {
		t.Errorf("the refused one has %d tickets, want 1", n)
	}
}
