package broker

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"herald/internal/testing/redistest"
	"herald/notify"
)

// model is what a user's log and read state must look like, in fifty lines.
type model struct {
	limit   int
	entries []modelEntry
	last    notify.ID
	read    notify.ID
}

type modelEntry struct {
	id, prev notify.ID
	text     string
	expires  time.Time // zero: never
}

func (m *model) publish(id notify.ID, text string, expires time.Time) {
	m.entries = append(m.entries, modelEntry{id, m.last, text, expires})
	m.entries = m.entries[max(0, len(m.entries)-m.limit):]
	m.last = id
}

func (m *model) markRead(upTo notify.ID) { m.read = max(m.read, min(upTo, m.last)) }

func (e modelEntry) expired(now time.Time) bool { return !e.expires.IsZero() && !now.Before(e.expires) }

func (m *model) unread(now time.Time) (n int) {
	for _, e := range m.entries {
		if e.id > m.read && !e.expired(now) {
			n++
		}
	}
	return n
}

// after lists what a read of the log returns, an expired entry without its text.
func (m *model) after(id notify.ID, limit int, now time.Time) (list []string) {
	for _, e := range m.entries {
		if e.id > id && len(list) < limit {
			if e.expired(now) {
				e.text = ""
			}
			list = append(list, fmt.Sprint(e.id, e.prev, e.text))
		}
	}
	return list
}

// TestModel drives the broker and the model with the same random steps.
func TestModel(t *testing.T) {
	t.Run("miniredis", func(t *testing.T) {
		m := miniredis.RunT(t)
		m.ClockTTL(true)
		now := time.Now().Truncate(time.Millisecond)
		m.SetTime(now)
		b := New(client(t, m.Addr()), Options{Budget: patience, LogLength: 20, LogRetention: 1000 * time.Hour})
		playModel(t, b, 3000, time.Second, func(d time.Duration) time.Time {
			now = now.Add(d)
			m.SetTime(now)
			return now
		})
	})
	t.Run("redis", func(t *testing.T) {
		rdb := client(t, redistest.Start(t).Addr)
		b := New(rdb, Options{Budget: patience, LogLength: 20, LogRetention: time.Hour})
		// Redis's own clock runs: a ttl is hours, so that what the model calls
		// expired does not depend on the moment of asking.
		playModel(t, b, 3000, time.Hour, func(time.Duration) time.Time {
			now, err := rdb.Time(t.Context()).Result()
			if err != nil {
				t.Fatal(err)
			}
			return now.Truncate(time.Millisecond)
		})
	})
}

// playModel plays steps; ttl is the unit of lifetimes, and pass lets time pass
// and returns the time.
func playModel(t *testing.T, b *Broker, steps int, ttl time.Duration, pass func(time.Duration) time.Time) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("MODEL_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("MODEL_SEED=%d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	users := []string{"a", "b", "c"}
	models := map[string]*model{}
	for _, u := range users {
		models[u] = &model{limit: b.o.LogLength}
	}
	for step := range steps {
		user := users[rng.IntN(len(users))]
		m := models[user]
		switch rng.IntN(6) {
		case 0, 1:
			d := draft(user, strconv.Itoa(step))
			if rng.IntN(3) == 0 {
				d.TTL = time.Duration(1+rng.IntN(20)) * ttl
			}
			r := publish(t, b, d)[0]
			now := pass(0)
			var expires time.Time
			if d.TTL > 0 {
				expires = now.Add(d.TTL)
			}
			if r.ID <= m.last {
				t.Fatalf("step %d: id %d after %d", step, r.ID, m.last)
			}
			m.publish(r.ID, strconv.Itoa(step), expires)
		case 2:
			upTo := m.somewhere(rng)
			if _, err := b.MarkRead(t.Context(), user, upTo); err != nil {
				t.Fatal(err)
			}
			m.markRead(upTo)
		case 3:
			pass(time.Duration(rng.IntN(3)) * time.Second)
		case 4:
			s, err := b.State(t.Context(), user)
			want := State{Last: m.last, Read: m.read, Unread: m.unread(pass(0))}
			if err != nil || s != want {
				t.Fatalf("step %d: user %s is at %+v, %v; want %+v", step, user, s, err, want)
			}
		case 5:
			after, limit := m.somewhere(rng), 1+rng.IntN(25)
			page, err := b.After(t.Context(), user, after, limit, 1<<30)
			if err != nil {
				t.Fatal(err)
			}
			want := m.after(after, limit, pass(0))
			if got := shortPage(page); !slices.Equal(got, want) || page.Last != m.last || page.Full != (len(want) == limit) {
				t.Fatalf("step %d: user %s after %d: %q, want %q", step, user, after, got, want)
			}
		}
	}
}

// somewhere is an id in, before or after the log.
func (m *model) somewhere(rng *rand.Rand) notify.ID {
	if len(m.entries) == 0 || rng.IntN(10) == 0 {
		return max(0, m.last+notify.ID(rng.IntN(5))-2)
	}
	return max(0, m.entries[rng.IntN(len(m.entries))].id+notify.ID(rng.IntN(3))-1)
}

func shortPage(p Page) (list []string) {
	for _, m := range p.Entries {
		text := ""
		if m.JSON != "" {
			const before = `"message":`
			i := len(m.JSON) - 1
			for m.JSON[i-len(before):i] != before {
				i--
			}
			text = m.JSON[i : len(m.JSON)-1]
		}
		list = append(list, fmt.Sprint(m.ID, m.Prev, text))
	}
	return list
}
