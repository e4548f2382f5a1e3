package hub

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"herald/notify"
)

// Deliver delivers one message by a Cork. Before it writes, it overwrites the memory
// of the message, as a caller that reuses buffers does.
func (h *Hub) Deliver(userID string, m notify.Frame) {
	user, frame := []byte(userID), []byte(m.JSON)
	m.JSON = unsafe.String(unsafe.SliceData(frame), len(frame))
	c := h.NewCork()
	c.Deliver(unsafe.String(unsafe.SliceData(user), len(user)), m)
	for _, b := range [][]byte{user, frame} {
		for i := range b {
			b[i] = '#'
		}
	}
	c.Uncork()
}

func TestCorkWritesOncePerSocketInOrder(t *testing.T) {
	h := newHub(t, Options{})
	_, a := connect(t, h, "a", 0)
	_, b := connect(t, h, "b", 0)
	s, c := connect(t, h, "c", 0)
	_, d := connect(t, h, "d", 0)
	cork := h.NewCork()
	for round := range notify.ID(2) { // the second reuses the Cork's memory
		a.writes, b.writes = 0, 0
		cork.Deliver("a", stored(3*round+1, 3*round))
		cork.Deliver("b", stored(round+1, round))
		cork.Deliver("a", stored(3*round+2, 3*round+1))
		cork.Deliver("a", notify.Frame{Event: "notification", JSON: "passing"})
		cork.Deliver("a", stored(3*round+3, 3*round+2))
		if a.writes+b.writes != 0 {
			t.Errorf("%d and %d writes before Uncork", a.writes, b.writes)
		}
		cork.Uncork()
		if a.writes != 1 || b.writes != 1 {
			t.Errorf("%d and %d writes, want one each", a.writes, b.writes)
		}
		for _, user := range []string{"a", "b"} {
			if s := h.user(user).sockets[0]; s.single[0] != nil || s.queue != nil {
				t.Error("the socket keeps sent frames in memory")
			}
		}
	}
	expect(t, a, "hello", "1", "2", "passing", "3", "4", "5", "passing", "6")
	expect(t, b, "hello", "1", "2")

	cork.Deliver("c", stored(1, 0))
	s.Send("error", []byte("an answer"))
	s.Close(notify.CloseRevoked, 0)
	cork.Deliver("c", stored(2, 1))
	cork.Deliver("d", stored(1, 0))
	h.user("d").sockets[0].End()
	cork.Uncork()
	expect(t, c, "hello", "1", "an answer", "bye 4002 false") // corked frames stay in order
	expect(t, d, "hello")
}

// A socket whose corked frames exceed the queue limit is not closed as too slow.
func TestCorkFlushesBeforeTheQueueLimit(t *testing.T) {
	for _, queue := range []int{1000, 64 << 10} {
		t.Run(fmt.Sprint("queue=", queue), func(t *testing.T) {
			h := newHub(t, Options{QueueBytes: queue})
			_, p := connect(t, h, "a", 0)
			cork := h.NewCork()
			frame := strings.Repeat("x", 700)
			for i := range notify.ID(1000) {
				cork.Deliver("a", notify.Frame{Event: "notification", ID: i + 1, Prev: i, JSON: frame})
			}
			if got := len(p.lines()); got < 900 {
				t.Errorf("%d of 1,000 frames written before Uncork", got)
			}
			cork.Uncork()
			if got := p.lines(); len(got) != 1001 || p.isClosed() {
				t.Errorf("%d lines, want 1,001; closed: %v", len(got), p.isClosed())
			}
		})
	}
}

// Bytes that the kernel does not accept stay in the socket's queue.
func TestUncorkQueuesTheRestOfAPartialWrite(t *testing.T) {
	h := newHub(t, Options{})
	_, a := connect(t, h, "a", 0)
	_, b := connect(t, h, "b", 0)
	cork := h.NewCork()
	a.room = 1
	cork.Deliver("a", stored(11, 0))
	cork.Uncork()
	for i := range notify.ID(10) {
		cork.Deliver("b", stored(i+1, i))
		cork.Uncork()
	}
	cork.Deliver("a", stored(22, 11)) // while the rest of the first write is queued
	cork.Uncork()
	expect(t, a, "hello", "1")
	a.drain(-1)
	expect(t, a, "hello", "11", "22")
	expect(t, b, "hello", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10")
}

// Corked bytes do not make a socket count as stalled, however long ago it last had
// queued bytes.
func TestCorkedSocketIsNotStalled(t *testing.T) {
	h := newHub(t, Options{})
	s, p := connect(t, h, "a", 0)
	s.moved = 1 // 1970
	cork := h.NewCork()
	cork.Deliver("a", stored(1, 0))
	s.Heard()
	if s.dead(time.Now().Add(-time.Minute)) {
		t.Error("the socket counts as dead")
	}
	cork.Uncork()
	expect(t, p, "hello", "1")
}

// The sockets are more than one goroutine writes to.
func TestCorkOfAThousandSockets(t *testing.T) {
	const users, messages = 1000, 20
	h := newHub(t, Options{})
	var pipes []*pipe
	for i := range users {
		_, p := connect(t, h, fmt.Sprint(i), 0)
		pipes = append(pipes, p)
	}
	cork := h.NewCork()
	for m := range notify.ID(messages) {
		for i := range users {
			cork.Deliver(fmt.Sprint(i), stored(m+1, m))
		}
		if m%3 == 2 {
			cork.Uncork()
		}
	}
	cork.Uncork()
	want := []string{"hello"}
	for m := range messages {
		want = append(want, fmt.Sprint(m+1))
	}
	for i, p := range pipes {
		if got := p.lines(); !slices.Equal(got, want) {
			t.Fatalf("user %d got %q", i, got)
		}
	}
}

// Two Corks and a direct sender share a socket; the frames of each stay in order.
func TestConcurrentSendersKeepTheirOrder(t *testing.T) {
	const rounds = 500
	h := newHub(t, Options{})
	s, p := connect(t, h, "a", 0)
	var work sync.WaitGroup
	for _, name := range []string{"x", "y"} {
		work.Go(func() {
			cork := h.NewCork()
			for i := range rounds {
				cork.Deliver("a", notify.Frame{Event: "notification", JSON: fmt.Sprint(name, i)})
				if i%7 == 0 {
					cork.Uncork()
				}
			}
			cork.Uncork()
		})
	}
	work.Go(func() {
		for i := range rounds {
			s.Send("pong", fmt.Append(nil, "z", i))
		}
	})
	work.Wait()
	next := map[byte]int{}
	for _, l := range p.lines()[1:] {
		if l != fmt.Sprint(string(l[0]), next[l[0]]) {
			t.Fatalf("%q, want number %d", l, next[l[0]])
		}
		next[l[0]]++
	}
	if next['x'] != rounds || next['y'] != rounds || next['z'] != rounds {
		t.Errorf("frames by sender: %v, want %d each", next, rounds)
	}
}

func TestCorkedSocketWritesOnceAfterUncork(t *testing.T) {
	h := newHub(t, Options{})
	p := newPipe()
	s := h.NewSocket("a", "", line, p)
	s.Cork([]byte("head\n"))
	if err := h.Join(s, time.Now()); err != nil {
		t.Fatal(err)
	}
	s.Greet([]byte("hello"), 0)
	s.GoLive(0)
	h.Deliver("a", stored(1, 0))
	if p.writes != 0 {
		t.Errorf("%d writes before Uncork", p.writes)
	}
	s.Uncork()
	s.Uncork()
	expect(t, p, "head", "hello", "1")
	if p.writes != 1 {
		t.Errorf("%d writes, want 1", p.writes)
	}
}

// A sender of frames over the cork limit flushes corked frames, while a Cork goes on
// adding some. The Cork's frames stay complete and in order.
func TestLargeFramesDoNotReorderACork(t *testing.T) {
	h := newHub(t, Options{})
	var sockets []*Socket
	var pipes []*pipe
	for i := range 50 {
		s, p := connect(t, h, fmt.Sprint(i), 0)
		sockets, pipes = append(sockets, s), append(pipes, p)
	}
	var work sync.WaitGroup
	work.Go(func() {
		big := []byte(strings.Repeat("y", corkBytes))
		for range 20 {
			for _, s := range sockets {
				s.Send("pong", big)
			}
		}
	})
	work.Go(func() {
		cork := h.NewCork()
		for i := range 100 {
			for u := range sockets {
				cork.Deliver(fmt.Sprint(u), notify.Frame{Event: "notification", JSON: fmt.Sprint("x", i)})
			}
			if i%10 == 9 {
				cork.Uncork()
			}
		}
	})
	work.Wait()
	for _, p := range pipes {
		n := 0
		for _, l := range p.lines()[1:] {
			if l[0] == 'x' {
				if l != fmt.Sprint("x", n) {
					t.Fatalf("%q, want number %d", l, n)
				}
				n++
			}
		}
		if n != 100 {
			t.Errorf("got %d frames of 100", n)
		}
	}
}
