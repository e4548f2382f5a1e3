package hub

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"herald/notify"
)

// fanned returns a hub with n live sockets of "a". Their fanout has no goroutine; the
// test advances it with fanStep.
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

// backfill calls Backfill and advances the fanout of u until it returns.
func backfill(h *Hub, u *user, entries ...notify.Frame) {
	done := make(chan struct{})
	go func() { defer close(done); h.Backfill(u.id, entries) }()
	for {
		select {
		case <-done:
			return
		default:
			h.fanStep(u, 1)
		}
	}
}

func ids(from, to int) (lines []string) {
	lines = []string{"hello"}
	for i := from; i <= to; i++ {
		lines = append(lines, fmt.Sprint(i))
	}
	return lines
}

// Messages that arrive during a fanout reach each socket in one write.
func TestFanoutBatchesQueuedMessages(t *testing.T) {
	h, u, _, pipes := fanned(t, 4)
	h.Deliver("a", stored(1, 0))
	h.fanStep(u, 2)
	for i := notify.ID(2); i <= 9; i++ {
		h.Deliver("a", stored(i, i-1))
	}
	expect(t, pipes[1], ids(1, 1)...)
	expect(t, pipes[2], "hello")
	h.fanStep(u, 2)
	for h.fanStep(u, 4) {
	}
	for _, p := range pipes {
		expect(t, p, ids(1, 9)...)
		if p.writes != 3 { // hello, 1, and the other eight
			t.Errorf("%d writes, want 3", p.writes)
		}
	}
	if u.fan != nil {
		t.Error("the idle fanout was not removed")
	}
}

// Sockets that join, go live or leave during a fanout get each message once.
func TestFanoutWhileSocketsChange(t *testing.T) {
	h, u, sockets, pipes := fanned(t, 4)
	h.Deliver("a", stored(1, 0))
	h.fanStep(u, 1)
	h.Leave(sockets[0]) // the last socket moves to its index in the user's list
	_, late := connect(t, h, "a", 1)
	h.Deliver("a", stored(2, 1))
	for h.fanStep(u, 1) {
	}
	expect(t, pipes[0], ids(1, 1)...)
	for _, p := range pipes[1:] {
		expect(t, p, ids(1, 2)...)
	}
	expect(t, late, ids(2, 2)...)
}

// A socket that has read part of a batch from the log gets the rest of it.
func TestFanoutToASocketThatIsAhead(t *testing.T) {
	h, u, _, pipes := fanned(t, 2)
	h.Deliver("a", stored(1, 0))
	h.Deliver("a", stored(2, 1))
	_, ahead := connect(t, h, "a", 2)
	h.Deliver("a", stored(3, 2))
	for h.fanStep(u, 1) {
	}
	expect(t, pipes[0], ids(1, 3)...)
	expect(t, ahead, ids(3, 3)...)
}

// A gap frame and backfilled messages come after the messages of a running fanout.
func TestRepairDoesNotOvertakeAFanout(t *testing.T) {
	h, u, _, pipes := fanned(t, 2)
	h.Deliver("a", stored(1, 0))
	h.Deliver("a", notify.Frame{Event: "notification", JSON: "passing"})
	backfill(h, u, stored(5, 4), notify.Frame{ID: 6, Prev: 5}, stored(7, 6))
	for h.fanStep(u, 1) {
	}
	for _, p := range pipes {
		got := p.lines()
		if len(got) != 6 || !slices.Equal([]string{got[1], got[2], got[4], got[5]}, []string{"1", "passing", "5", "7"}) {
			t.Errorf("client got %q", got)
		}
	}
}

// If the fanout is full, a stored message is read from the log later. An ephemeral
// message is dropped and counted.
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
	backfill(h, u, stored(1, 0))
	h.Repaired("a", 1, 1)
	for h.fanStep(u, 1) {
	}
	expect(t, pipes[0], ids(1, 1)...)
}

// stalled is a transport whose Write blocks until release is closed.
type stalled struct {
	*pipe
	entered, release chan struct{}
	enter            func() // closes entered
}

func (p *stalled) Write(b []byte) (int, error) {
	p.enter()
	<-p.release
	return p.pipe.Write(b)
}

// within fails the test unless f returns.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(10 * time.Second): // only if the test fails
		t.Errorf("%s blocks on a write to another socket", what)
	}
}

// A slow write delays only the sockets of its user.
func TestASlowWriteDoesNotDelayDeliver(t *testing.T) {
	entries := []notify.Frame{stored(2, 1), stored(3, 2), stored(4, 3)}
	for name, row := range map[string]struct {
		sockets int
		write   func(h *Hub)
		want    []string
	}{
		"a repair":                   {2, func(h *Hub) { h.Backfill("a", entries) }, append(ids(2, 4), "passing")},
		"a repair of many sockets":   {fanMin, func(h *Hub) { h.Backfill("a", entries) }, append(ids(2, 4), "passing")},
		"a loss, for many sockets":   {fanMin, func(h *Hub) { h.Repaired("a", 4, 4) }, []string{"hello", string(notify.GapFrame(1, 0)), "passing"}},
		"a revocation of many":       {fanMin, func(h *Hub) { h.Revoke("a", []string{"session"}) }, []string{"hello", "bye 4002 false"}},
		"a delivery to many sockets": {fanMin, func(h *Hub) { h.Deliver("a", stored(2, 1)) }, []string{"hello", "2", "passing"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHub(t, Options{MaxPerUser: -1, OnGap: func(string) {}})
			other := "b"
			for h.shard(other) != h.shard("a") {
				other += "b"
			}
			_, others := connect(t, h, other, 0)
			var slow *stalled
			var pipes []*pipe
			for i := range row.sockets {
				s, p := connect(t, h, "a", 1)
				s.Session = "session"
				if i == 0 {
					slow = &stalled{pipe: p, entered: make(chan struct{}), release: make(chan struct{})}
					slow.enter = sync.OnceFunc(func() { close(slow.entered) })
					s.out = slow
				}
				pipes = append(pipes, p)
			}
			finished := make(chan struct{})
			go func() { defer close(finished); row.write(h) }()
			<-slow.entered
			cork := h.NewCork()
			within(t, "Deliver to another user", func() { h.Deliver(other, stored(1, 0)) })
			within(t, "Deliver", func() { cork.Deliver("a", notify.Frame{JSON: "passing"}) })
			within(t, "Join", func() { _ = h.Join(h.NewSocket("a", "", line, newPipe()), time.Now()) })
			close(slow.release)
			<-finished
			cork.Uncork()
			h.fans.Wait()
			expect(t, others, ids(1, 1)...)
			for _, p := range pipes {
				expect(t, p, row.want...)
			}
		})
	}
}
