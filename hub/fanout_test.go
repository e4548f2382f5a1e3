package hub

import (
	"fmt"
	"slices"
	"testing"

	"herald/notify"
)

// fanned is a hub with n live sockets of "a", whose fanout only goes on when the
// test says so.
func fanned(t *testing.T, n int) (h *Hub, u *user, sockets []*Socket, pipes []*pipe) {
	t.Helper()
	h = newHub(t, Options{MaxPerUser: -1})
	for range n {
		s, p := connect(t, h, "a", 0)
		sockets, pipes = append(sockets, s), append(pipes, p)
	}
	u = h.user("a")
	u.fan = &fanout{}
	return h, u, sockets, pipes
}

func (u *user) advance(h *Hub, n int) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return h.fanSomeLocked(u, n)
}

func ids(from, to int) (lines []string) {
	lines = []string{"hello"}
	for i := from; i <= to; i++ {
		lines = append(lines, fmt.Sprint(i))
	}
	return lines
}

// What waits while a message goes out to many is one write to each.
func TestFanoutJoinsWhatWaits(t *testing.T) {
	h, u, _, pipes := fanned(t, 4)
	h.Deliver("a", stored(1, 0))
	u.advance(h, 2)
	for i := notify.ID(2); i <= 9; i++ {
		h.Deliver("a", stored(i, i-1))
	}
	expect(t, pipes[1], ids(1, 1)...)
	expect(t, pipes[2], "hello")
	u.advance(h, 2)
	for u.advance(h, 4) {
	}
	for _, p := range pipes {
		expect(t, p, ids(1, 9)...)
		if p.writes != 3 { // hello, 1, and the other eight
			t.Errorf("%d writes", p.writes)
		}
	}
	if u.fan != nil {
		t.Error("a fanout with nothing to do is kept")
	}
}

// Sockets that come, go live and leave while a batch goes out get each message once.
func TestFanoutWhileSocketsChange(t *testing.T) {
	h, u, sockets, pipes := fanned(t, 4)
	h.Deliver("a", stored(1, 0))
	u.advance(h, 1)
	h.Leave(sockets[0]) // the last takes its place in the user's list
	_, late := connect(t, h, "a", 1)
	h.Deliver("a", stored(2, 1))
	for u.advance(h, 1) {
	}
	expect(t, pipes[0], ids(1, 1)...)
	for _, p := range pipes[1:] {
		expect(t, p, ids(1, 2)...)
	}
	expect(t, late, ids(2, 2)...)
}

// A socket that has read part of a batch from the log is sent the rest of it.
func TestFanoutToASocketThatIsAhead(t *testing.T) {
	h, u, _, pipes := fanned(t, 2)
	h.Deliver("a", stored(1, 0))
	h.Deliver("a", stored(2, 1))
	_, ahead := connect(t, h, "a", 2)
	h.Deliver("a", stored(3, 2))
	for u.advance(h, 1) {
	}
	expect(t, pipes[0], ids(1, 3)...)
	expect(t, ahead, ids(3, 3)...)
}

// A gap, and whatever else moves live sockets on, comes after what waits.
func TestRepairDoesNotOvertakeAFanout(t *testing.T) {
	h, u, _, pipes := fanned(t, 2)
	h.Deliver("a", stored(1, 0))
	h.Deliver("a", notify.Frame{Event: "notification", JSON: "passing"})
	h.Backfill("a", []notify.Frame{stored(5, 4), {ID: 6, Prev: 5}, stored(7, 6)})
	for u.advance(h, 1) {
	}
	for _, p := range pipes {
		got := p.lines()
		if len(got) != 6 || !slices.Equal([]string{got[1], got[2], got[4], got[5]}, []string{"1", "passing", "5", "7"}) {
			t.Errorf("client got %q", got)
		}
	}
}

// What finds no room is read from the log, or dropped and counted if it is in none.
func TestFanoutIsBounded(t *testing.T) {
	behind := 0
	h, u, _, pipes := fanned(t, 2)
	h.o.OnGap = func(string) { behind++ }
	u.fan.bytes = fanMost + 1
	h.Deliver("a", stored(1, 0))
	h.Deliver("a", notify.Frame{Event: "notification", JSON: "passing"})
	if stats := h.Stats(); behind != 1 || stats.Shed != 1 {
		t.Errorf("%d repairs, %d shed", behind, stats.Shed)
	}
	u.fan.bytes = 0
	h.Backfill("a", []notify.Frame{stored(1, 0)})
	h.Repaired("a", 1, 1)
	for u.advance(h, 1) {
	}
	expect(t, pipes[0], ids(1, 1)...)
}
