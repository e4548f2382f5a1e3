package hub

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"go.uber.org/goleak"

	"herald/notify"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lineFraming encodes a message as one line of readable text.
type lineFraming struct{ answers, chatty bool }

func (*lineFraming) Encode(m notify.Frame) []byte { return []byte(m.JSON + "\n") }
func (*lineFraming) Ping() []byte                 { return []byte("ping\n") }
func (w *lineFraming) AnswersClose() bool         { return w.answers }
func (w *lineFraming) AnswersPing() bool          { return w.chatty }
func (*lineFraming) Goodbye(code notify.CloseCode, retry int) []byte {
	return fmt.Appendf(nil, "bye %d %v\n", code, retry > 0)
}

// line is the framing of test sockets whose peers answer pings and close frames.
var line = &lineFraming{answers: true, chatty: true}

// pipe is a transport with a bounded send buffer that a test drains.
type pipe struct {
	mu     sync.Mutex
	room   int // guarded by mu: bytes that Write still accepts; negative: unlimited
	got    []byte
	step   func(func([]byte) (int, error)) bool // guarded by mu
	closed bool
	writes int
}

func newPipe() *pipe { return &pipe{room: -1} }

func (p *pipe) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.writes++
	if p.closed {
		return 0, errors.New("closed")
	}
	n := len(b)
	if p.room >= 0 {
		n = min(n, p.room)
		p.room -= n
	}
	p.got = append(p.got, b[:n]...)
	return n, nil
}

func (p *pipe) Drain(step func(func([]byte) (int, error)) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.step = step
}

func (p *pipe) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
}

// drain lets Write accept n more bytes (negative: unlimited) and flushes the queue.
func (p *pipe) drain(n int) {
	p.mu.Lock()
	p.room = n
	step := p.step
	p.step = nil
	p.mu.Unlock()
	if step != nil && !step(p.Write) {
		p.Drain(step)
	}
}

func (p *pipe) lines() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.DeleteFunc(strings.Split(string(p.got), "\n"), func(s string) bool { return s == "" })
}

func (p *pipe) isClosed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

// stored returns a stored notification whose frame is its id.
func stored(id, prev notify.ID) notify.Frame {
	return notify.Frame{Event: "notification", ID: id, Prev: prev, JSON: fmt.Sprint(id)}
}

// connect returns a live socket of the user whose client has all messages up to last.
func connect(t *testing.T, h *Hub, userID string, last notify.ID) (*Socket, *pipe) {
	t.Helper()
	p := newPipe()
	s := h.NewSocket(userID, "", line, p)
	if err := h.Join(s, time.Now()); err != nil {
		t.Fatal(err)
	}
	s.Greet([]byte("hello"), last)
	if !s.GoLive(h.Target(userID)) {
		t.Fatal("GoLive returned false")
	}
	return s, p
}

func expect(t *testing.T, p *pipe, want ...string) {
	t.Helper()
	if got := p.lines(); !slices.Equal(got, want) {
		t.Errorf("client got %q, want %q", got, want)
	}
}

func newHub(t *testing.T, o Options) *Hub {
	h := New(o)
	t.Cleanup(h.Close)
	return h
}

func TestDeliverOnlyToTheUsersOwnSockets(t *testing.T) {
	h := newHub(t, Options{})
	_, a1 := connect(t, h, "a", 0)
	_, a2 := connect(t, h, "a", 0)
	_, b := connect(t, h, "b", 0)
	h.Deliver("a", stored(1, 0))
	h.Deliver("b", stored(7, 0))
	h.Deliver("nobody", stored(9, 0))
	h.Deliver("a", notify.Frame{JSON: "ephemeral"})
	expect(t, a1, "hello", "1", "ephemeral")
	expect(t, a2, "hello", "1", "ephemeral")
	expect(t, b, "hello", "7")
}

func TestDeliverSkipsMessagesThatASocketHas(t *testing.T) {
	h := newHub(t, Options{})
	_, early := connect(t, h, "a", 1)
	h.Deliver("a", stored(2, 1))
	_, late := connect(t, h, "a", 3) // its log read was ahead of the announcement
	h.Deliver("a", stored(2, 1))
	h.Deliver("a", stored(3, 2))
	h.Deliver("a", stored(4, 3))
	expect(t, early, "hello", "2", "3", "4")
	expect(t, late, "hello", "4")
}

func TestMissingMessageStartsARepair(t *testing.T) {
	var behind []string
	h := newHub(t, Options{OnGap: func(id string) { behind = append(behind, id) }})
	_, p := connect(t, h, "a", 1)
	h.Deliver("a", stored(4, 3))
	h.Deliver("a", stored(5, 4)) // is queued for the same repair
	if !slices.Equal(behind, []string{"a"}) {
		t.Fatalf("OnGap calls %q, want one for a", behind)
	}
	target := h.Target("a")
	if after, ok := h.Position("a"); !ok || after != 1 {
		t.Fatalf("position %d, %v", after, ok)
	}
	h.Backfill("a", []notify.Frame{stored(2, 1), stored(3, 2), stored(4, 3)})
	h.Deliver("a", stored(6, 5))
	if h.Repaired("a", target, 5) {
		t.Error("the repair is complete without 6")
	}
	h.Backfill("a", []notify.Frame{stored(4, 3), stored(5, 4), stored(6, 5)})
	if !h.Repaired("a", h.Target("a"), 6) {
		t.Error("the repair is not complete with 6")
	}
	h.Deliver("a", stored(7, 6))
	expect(t, p, "hello", "2", "3", "4", "5", "6", "7")
}

func TestRepairSendsGapFramesForLostMessages(t *testing.T) {
	h := newHub(t, Options{OnGap: func(string) {}})
	_, p := connect(t, h, "a", 1)
	h.Deliver("a", stored(9, 8))
	h.Backfill("a", []notify.Frame{stored(8, 7), stored(9, 8)}) // 2…7 were trimmed
	h.Repaired("a", h.Target("a"), 9)
	h.Deliver("a", stored(20, 19))
	h.Repaired("a", h.Target("a"), 20) // the log has no entry since 9
	h.Deliver("a", stored(21, 20))
	expect(t, p, "hello", string(notify.GapFrame(1, 8)), "8", "9", string(notify.GapFrame(9, 0)), "21")
}

func TestExpiredMessagesAreNotAGap(t *testing.T) {
	h := newHub(t, Options{OnGap: func(string) {}})
	_, p := connect(t, h, "a", 1)
	expired := notify.Frame{ID: 2, Prev: 1}
	h.Deliver("a", stored(3, 2))
	h.Backfill("a", []notify.Frame{expired, stored(3, 2)})
	h.Repaired("a", 3, 3)
	expect(t, p, "hello", "3")

	s := h.NewSocket("a", "", line, newPipe())
	_ = h.Join(s, time.Now())
	s.Greet([]byte("hello"), 1)
	s.Resume(t.Context(), []notify.Frame{expired, stored(3, 2)})
	expect(t, s.out.(*pipe), "hello", "3")
}

func TestGoLiveFailsIfAMessageWasAnnouncedMeanwhile(t *testing.T) {
	h := newHub(t, Options{})
	p := newPipe()
	s := h.NewSocket("a", "", line, p)
	if err := h.Join(s, time.Now()); err != nil {
		t.Fatal(err)
	}
	s.Greet([]byte("hello"), 5)
	target := h.Target("a")
	h.Deliver("a", stored(6, 5)) // after the log was read
	if s.GoLive(target) {
		t.Fatal("live without 6")
	}
	target = h.Target("a")
	s.Resume(t.Context(), []notify.Frame{stored(6, 5)})
	if !s.GoLive(target) {
		t.Fatal("not live with 6")
	}
	h.Deliver("a", stored(7, 6))
	expect(t, p, "hello", "6", "7")
}

func TestGoLiveFailsBehindAnotherSocket(t *testing.T) {
	h := newHub(t, Options{})
	p := newPipe()
	s := h.NewSocket("a", "", line, p)
	if err := h.Join(s, time.Now()); err != nil {
		t.Fatal(err)
	}
	s.Greet([]byte("hello"), 6) // the newest id before 7 was stored
	target := h.Target("a")
	connect(t, h, "a", 7) // has read 7 from the log, before its announcement arrived
	if s.GoLive(target) {
		t.Fatal("live without 7")
	}
	target = h.Target("a")
	s.Resume(t.Context(), []notify.Frame{stored(7, 6)})
	if !s.GoLive(target) {
		t.Fatal("not live with 7")
	}
	h.Deliver("a", stored(7, 6))
	h.Deliver("a", stored(8, 7))
	expect(t, p, "hello", "7", "8")
}

func TestResumeSendsGapFrames(t *testing.T) {
	h := newHub(t, Options{})
	p := newPipe()
	s := h.NewSocket("a", "", line, p)
	_ = h.Join(s, time.Now())
	s.Greet([]byte("hello"), 5)
	s.Resume(t.Context(), []notify.Frame{stored(9, 8), stored(10, 9)})
	s.SendGap(12)
	expect(t, p, "hello", string(notify.GapFrame(5, 9)), "9", "10", string(notify.GapFrame(10, 0)))
	if s.Last() != 12 {
		t.Errorf("position %d", s.Last())
	}
}

func TestGapFrameBeginsAtEachSocketsPosition(t *testing.T) {
	h := newHub(t, Options{OnGap: func(string) {}})
	_, behind := connect(t, h, "a", 5)
	_, ahead := connect(t, h, "a", 7) // its log read was ahead of the announcements
	h.Deliver("a", stored(9, 8))
	h.Backfill("a", []notify.Frame{stored(9, 8)}) // 6…8 were trimmed meanwhile
	expect(t, behind, "hello", string(notify.GapFrame(5, 9)), "9")
	expect(t, ahead, "hello", string(notify.GapFrame(7, 9)), "9")
}

// A repair after a lost subscription finds id 6. A resuming socket must read it
// before it goes live.
func TestRepairDelaysAResumingSocket(t *testing.T) {
	h := newHub(t, Options{})
	s := h.NewSocket("a", "", line, newPipe())
	_ = h.Join(s, time.Now())
	s.Greet([]byte("hello"), 5)
	target := h.Target("a") // 6 is stored from here on, its announcement lost
	if h.Repair("a", 6) {
		t.Error("a repair started without a live socket")
	}
	if s.GoLive(target) {
		t.Error("live without 6")
	}
}

func TestGreetReportsAMissedFrame(t *testing.T) {
	h := newHub(t, Options{})
	s := h.NewSocket("a", "", line, newPipe())
	_ = h.Join(s, time.Now())
	h.Deliver("a", notify.Frame{Event: "read", JSON: "read"})
	if !s.Greet([]byte("hello"), 5) {
		t.Error("Greet does not report the missed read frame")
	}
}

func TestSlowSocketIsClosedAndDelaysNoOther(t *testing.T) {
	h := newHub(t, Options{QueueBytes: 100})
	_, fast := connect(t, h, "a", 0)
	_, slow := connect(t, h, "a", 0)
	slow.drain(1) // accepts one more byte, then none
	frame := strings.Repeat("x", 39)
	for i := range notify.ID(10) {
		h.Deliver("a", notify.Frame{Event: "notification", ID: i + 1, Prev: i, JSON: frame})
	}
	if n := len(fast.lines()); n != 11 {
		t.Errorf("the fast client got %d lines, want 11", n)
	}
	slow.drain(-1)
	// The partly written frame is completed, then comes the close frame. The client
	// gets the other frames when it resumes.
	expect(t, slow, "hello", frame, "bye 4102 false")
	if n := h.Stats().Closed[notify.CloseTooSlow]; n != 1 {
		t.Errorf("%d sockets closed as too slow, want 1", n)
	}
}

func TestQueuedFramesAreOneWrite(t *testing.T) {
	h := newHub(t, Options{})
	_, p := connect(t, h, "a", 0)
	p.drain(0)
	for i := range notify.ID(16) {
		h.Deliver("a", stored(i+1, i))
	}
	before := p.writes
	p.drain(-1)
	if p.writes != before+1 || len(p.lines()) != 17 {
		t.Errorf("%d writes of %d lines, want 1 of 17", p.writes-before, len(p.lines()))
	}
}

func TestResumeWaitsForASlowClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Options{QueueBytes: 100})
		defer h.Close()
		p := newPipe()
		s := h.NewSocket("a", "", line, p)
		_ = h.Join(s, time.Now())
		s.Greet([]byte("hello"), 0)
		p.drain(0)
		var entries []notify.Frame
		for i := range notify.ID(200) {
			entries = append(entries, stored(i+1, i))
		}
		done := make(chan bool)
		go func() { done <- s.Resume(t.Context(), entries) }()
		for finished := false; !finished; {
			synctest.Wait()
			select {
			case ok := <-done:
				finished = true
				if !ok {
					t.Error("the socket was closed")
				}
			default:
				p.drain(7)
			}
		}
		p.drain(-1)
		if n := len(p.lines()); n != 201 {
			t.Errorf("got %d lines, want 201", n)
		}
	})
}

func TestJoinRefuses(t *testing.T) {
	h := newHub(t, Options{MaxPerUser: 1, MaxSockets: 2})
	join := func(user, session string, since time.Time) error {
		return h.Join(h.NewSocket(user, session, line, newPipe()), since)
	}
	before := time.Now()
	connect(t, h, "a", 0)
	if err := join("a", "", before); !errors.Is(err, ErrTooMany) {
		t.Errorf("second of a user: %v", err)
	}
	h.Revoke("b", []string{"s1"})
	if err := join("b", "s1", before); !errors.Is(err, ErrRevoked) {
		t.Errorf("revoked while connecting: %v", err)
	}
	if err := join("b", "s1", time.Now()); err != nil {
		t.Errorf("authenticated after the revocation: %v", err)
	}
	if err := join("c", "", before); !errors.Is(err, ErrFull) {
		t.Errorf("third socket: %v", err)
	}
}

// Concurrent joins do not exceed the limits of a node or of a user.
func TestConcurrentJoinsRespectTheLimits(t *testing.T) {
	for name, o := range map[string]Options{"node": {MaxSockets: 3, MaxPerUser: -1}, "user": {MaxPerUser: 3}} {
		t.Run(name, func(t *testing.T) {
			for range 500 {
				h := New(o)
				var joined atomic.Int64
				var wg sync.WaitGroup
				begin := make(chan struct{})
				for i := range 16 {
					user := "a"
					if o.MaxSockets > 0 {
						user = fmt.Sprint(i)
					}
					s := h.NewSocket(user, "", line, &sink{})
					wg.Go(func() {
						<-begin
						if h.Join(s, time.Time{}) == nil {
							joined.Add(1)
						}
					})
				}
				close(begin)
				wg.Wait()
				counted, _ := h.Count()
				h.Close()
				if joined.Load() != 3 || counted != 3 {
					t.Fatalf("%d joined, %d counted, want 3", joined.Load(), counted)
				}
			}
		})
	}
}

// Two shards on one cache line would cause false sharing between processors.
func TestAShardIsACacheLine(t *testing.T) {
	const line = 64
	if size := unsafe.Sizeof(shard{}); size != line {
		t.Errorf("a shard has %d bytes, want %d", size, line)
	}
	used := unsafe.Offsetof(shard{}.users) + unsafe.Sizeof(shard{}.users)
	if begin := uintptr(unsafe.Pointer(&newHub(t, Options{}).shards)) % line; begin+used > line {
		t.Errorf("the first shard's fields begin at byte %d of a cache line", begin)
	}
}

func TestRevokeClosesOnlyThatSession(t *testing.T) {
	h := newHub(t, Options{})
	open := func(session string) *pipe {
		p := newPipe()
		if err := h.Join(h.NewSocket("a", session, line, p), time.Now()); err != nil {
			t.Fatal(err)
		}
		return p
	}
	s1, s2, token := open("s1"), open("s2"), open("")
	h.Revoke("a", []string{"s1", "s9"})
	expect(t, s1, "bye 4002 false")
	expect(t, s2)
	expect(t, token)
}

func TestPingExpiryAndCloseTimeouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Options{Ping: 10 * time.Second})
		defer h.Close()
		_, silent := connect(t, h, "a", 0)
		talker, talking := connect(t, h, "a", 0)
		expiring, expired := connect(t, h, "b", 0)
		expiring.SetExpiry(time.Now().Add(3 * time.Second))
		deaf, unanswered := connect(t, h, "c", 0)
		deaf.Close(notify.CloseRevoked, 0)

		time.Sleep(1900 * time.Millisecond)
		synctest.Wait()
		if unanswered.isClosed() {
			t.Error("closed before the peer could answer the close frame")
		}
		time.Sleep(1600 * time.Millisecond)
		synctest.Wait()
		if !unanswered.isClosed() {
			t.Error("not closed although the peer never answered the close frame")
		}
		expect(t, expired, "hello", "bye 4001 false")

		time.Sleep(7 * time.Second)
		synctest.Wait()
		expect(t, silent, "hello", "ping")
		time.Sleep(10 * time.Second)
		talker.Heard()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if !silent.isClosed() || talking.isClosed() {
			t.Errorf("silent closed: %v, talking closed: %v", silent.isClosed(), talking.isClosed())
		}
	})
}

func TestStalledPeerIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Options{Ping: 10 * time.Second})
		defer h.Close()
		p := newPipe()
		s := h.NewSocket("a", "", &lineFraming{}, p) // server-sent events: the client sends nothing
		_ = h.Join(s, time.Now())
		s.Greet([]byte("hello"), 0)
		p.drain(0)
		s.Send("x", []byte("stuck"))
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if p.isClosed() {
			t.Error("closed too early")
		}
		time.Sleep(15 * time.Second)
		synctest.Wait()
		if !p.isClosed() {
			t.Error("the stalled socket is still open")
		}
	})
}

func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Options{})
		defer h.Close()
		var pipes []*pipe
		for i := range 1500 {
			s, p := connect(t, h, fmt.Sprint("u", i), 0)
			pipes = append(pipes, p)
			answers := i%2 == 0 // even clients answer at once, odd ones never
			go func() {
				for !p.isClosed() && !(answers && slices.Contains(p.lines(), "bye 4101 true")) {
					time.Sleep(10 * time.Millisecond)
				}
				h.Leave(s)
			}()
		}
		began := time.Now()
		h.Drain(context.Background(), 30*time.Second)
		if took := time.Since(began); took < time.Second || took > 10*time.Second {
			t.Errorf("drained in %v", took)
		}
		for i, p := range pipes {
			if !p.isClosed() || !slices.Contains(p.lines(), "bye 4101 true") {
				t.Fatalf("client %d: closed %v, got %q", i, p.isClosed(), p.lines())
			}
		}
		if err := h.Join(h.NewSocket("a", "", line, newPipe()), time.Now()); !errors.Is(err, ErrDraining) {
			t.Errorf("join while draining: %v", err)
		}
	})
}

// Sockets join, resume and leave while messages are stored and announced, and some
// announcements are lost. Each socket gets all messages since it joined, in order.
func TestConcurrentSocketsGetEveryMessage(t *testing.T) {
	t.Run("direct", func(t *testing.T) { testConcurrentSockets(t, fanMin) })
	t.Run("fanout", func(t *testing.T) { testConcurrentSockets(t, 2) })
}

func testConcurrentSockets(t *testing.T, fanMin int) {
	const users, messages, visits = 4, 400, 40
	type log struct {
		mu      sync.Mutex
		entries []notify.Frame
	}
	logs := map[string]*log{}
	for i := range users {
		logs[fmt.Sprint(i)] = &log{}
	}
	read := func(id string, after notify.ID) []notify.Frame {
		l := logs[id]
		l.mu.Lock()
		defer l.mu.Unlock()
		return slices.Clone(l.entries[after:])
	}
	behind := make(chan string, users*messages)
	h := newHub(t, Options{MaxPerUser: -1, OnGap: func(id string) { behind <- id }})
	h.fanMin = fanMin
	repair := func(id string) {
		for {
			target := h.Target(id)
			after, ok := h.Position(id)
			if !ok {
				h.Repaired(id, target, target)
				return
			}
			page := read(id, after)
			h.Backfill(id, page)
			newest := after
			if len(page) > 0 {
				newest = page[len(page)-1].ID
			}
			if h.Repaired(id, target, newest) {
				return
			}
		}
	}
	var repairs, work sync.WaitGroup
	repairs.Go(func() {
		for id := range behind {
			repair(id)
		}
	})
	for id, l := range logs {
		work.Go(func() {
			for i := range notify.ID(messages) {
				m := stored(i+1, i)
				l.mu.Lock()
				l.entries = append(l.entries, m)
				l.mu.Unlock()
				if rand.IntN(10) > 0 || i == messages-1 {
					h.Deliver(id, m)
				}
			}
		})
		for range visits {
			work.Go(func() {
				since := notify.ID(len(read(id, 0)))
				p := newPipe()
				s := h.NewSocket(id, "", line, p)
				if err := h.Join(s, time.Now()); err != nil {
					t.Error(err)
				}
				s.Greet([]byte("hello"), since)
				for {
					target := h.Target(id)
					s.Resume(t.Context(), read(id, s.Last()))
					if s.GoLive(target) {
						break
					}
				}
				for range rand.IntN(50) {
					h.Position(id)
				}
				h.Leave(s)
				for i, got := range p.lines()[1:] {
					if want := fmt.Sprint(int(since) + i + 1); got != want {
						t.Errorf("after %d: line %d is %s, want %s", since, i, got, want)
						return
					}
				}
			})
		}
	}
	work.Wait()
	close(behind)
	repairs.Wait()
	if sockets, users := h.Count(); sockets != 0 || users != 0 {
		t.Errorf("%d sockets of %d users left", sockets, users)
	}
}

// sink is a transport that discards all bytes.
type sink struct{ n int }

func (s *sink) Write(p []byte) (int, error)              { s.n += len(p); return len(p), nil }
func (*sink) Drain(func(func([]byte) (int, error)) bool) {}
func (*sink) Close()                                     {}

func BenchmarkDeliverAbsent(b *testing.B) {
	h := New(Options{})
	defer h.Close()
	m := notify.Frame{Event: "notification", ID: 1, JSON: strings.Repeat("x", 200)}
	cork := h.NewCork()
	b.ReportAllocs()
	for b.Loop() {
		cork.Deliver("nobody", m)
	}
}

func BenchmarkDeliver(b *testing.B) {
	for _, sockets := range []int{1, 10, 5000} {
		b.Run(fmt.Sprint("sockets=", sockets), func(b *testing.B) {
			h := New(Options{MaxPerUser: -1})
			defer h.Close()
			for range sockets {
				s := h.NewSocket("a", "", line, &sink{})
				_ = h.Join(s, time.Now())
				s.Greet([]byte("hello"), 0)
				s.GoLive(0)
			}
			u, frame, cork := h.user("a"), strings.Repeat("x", 200), h.NewCork()
			b.ReportAllocs()
			id := notify.ID(0)
			for b.Loop() {
				cork.Deliver("a", notify.Frame{Event: "notification", ID: id + 1, Prev: id, JSON: frame})
				cork.Uncork()
				id++
				h.awaitFanout(u) // with many sockets the fanout writes
			}
		})
	}
}

func TestDeliverToAnAbsentUserDoesNotAllocate(t *testing.T) {
	h := newHub(t, Options{})
	m, cork := stored(1, 0), h.NewCork()
	if n := testing.AllocsPerRun(100, func() { cork.Deliver("nobody", m) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
