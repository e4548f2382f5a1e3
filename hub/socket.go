package hub

import (
	"sync"
	"sync/atomic"
	"time"

	"herald/notify"
)

// Framing encodes frames for one kind of transport, WebSocket or SSE. It is a
// comparable value that all sockets of that kind share. The bytes it returns are
// shared too and must not be modified.
type Framing interface {
	Encode(notify.Frame) []byte
	Ping() []byte
	// Goodbye returns the bye frame and what closes the stream after it.
	// retryAfterMs 0 is left out.
	Goodbye(code notify.CloseCode, retryAfterMs int) []byte
	// AnswersClose reports whether the peer answers a goodbye. Then the connection
	// stays open for the answer, at most Options.CloseWithin.
	AnswersClose() bool
	// AnswersPing reports whether a live peer answers each ping. Then a peer from
	// which no byte came for 2.5 ping intervals is closed as dead.
	AnswersPing() bool
}

// Transport writes one socket's bytes. The hub never calls Write concurrently.
type Transport interface {
	// Write writes what the kernel takes without blocking, perhaps nothing. n < len(p)
	// with a nil error means that the kernel's buffer is full.
	Write(p []byte) (n int, err error)
	// Drain calls step on another goroutine, now and whenever the connection
	// becomes writable, until step returns true. step writes with the function it
	// is given, which like Write does not block, and fails when the connection has
	// failed. The hub does not call Write before step has returned true.
	Drain(step func(write func(p []byte) (n int, err error)) (done bool))
	// Close closes the connection at once, without flushing. It may be called more than once.
	Close()
}

// Socket is one client's connection on any transport. Its methods are safe for
// concurrent use unless they say otherwise.
type Socket struct {
	// Static after construction.
	UserID  string
	Session string // the session's handle; "" if authenticated otherwise
	Data    any    // for the server's use
	hub     *Hub
	framing Framing
	out     Transport

	// Guarded by its shard's mutex until Join, static afterwards.
	user *user

	// Guarded by user.mu, except that last belongs to the resuming goroutine
	// until the socket is live.
	live    bool
	greeted bool
	missed  bool // something for it passed before it was greeted
	cut     bool // has left or is revoked: is sent nothing announced later
	last    notify.ID

	mu     sync.Mutex
	state  state         // guarded by mu
	corked bool          // guarded by mu: the queue waits for Uncork
	queue  [][]byte      // guarded by mu: waiting for the transport or for Uncork; the first may be partly written
	queued int           // guarded by mu: bytes in queue
	moved  int64         // guarded by mu: Unix ns when the queue began, or bytes last left it
	single [1][]byte     // guarded by mu: memory of a corked queue's first element
	room   chan struct{} // guarded by mu: created by awaitRoom, closed when the queue has room or the socket has ended

	// Owned by the wheel's goroutine, written before the socket is scheduled.
	timer  timer
	pingAt int64 // Unix ns

	heard   atomic.Int64 // Unix ns of the last byte from the peer
	expires atomic.Int64 // Unix ns when the credentials run out; 0: never
	due     atomic.Int64 // Unix ns when SetDeadline's deadline is over; 0: none
	closeBy atomic.Int64 // Unix ns when a closing socket is ended; 0: not closing
}

type state uint8

const (
	open    state = iota
	closing       // our goodbye is queued or sent: nothing is added to it
	ended
)

// NewSocket returns a socket that writes to out. It can be closed at once; it gets
// messages and pings, and expires, once it has joined. session is the handle of the
// session that authenticated it, "" if none.
func (h *Hub) NewSocket(userID, session string, w Framing, out Transport) *Socket {
	s := &Socket{UserID: userID, Session: session, hub: h, framing: w, out: out}
	now := time.Now()
	s.heard.Store(now.UnixNano())
	s.pingAt = now.Add(s.pingEvery()).UnixNano()
	s.timer.socket = s
	return s
}

// Heard records that a byte came from the peer, which is therefore alive.
func (s *Socket) Heard() { s.heard.Store(time.Now().UnixNano()) }

// SetExpiry sets when the credentials expire; the zero time means never.
func (s *Socket) SetExpiry(t time.Time) {
	if t.IsZero() {
		s.expires.Store(0)
		return
	}
	s.expires.Store(t.UnixNano())
	s.hub.wheel.schedule(&s.timer, time.Now()) // the tick works out what comes first
}

// Expiry returns what SetExpiry set.
func (s *Socket) Expiry() time.Time {
	if ns := s.expires.Load(); ns != 0 {
		return time.Unix(0, ns)
	}
	return time.Time{}
}

// SetDeadline closes the connection at t, without a goodbye, unless another deadline
// is set before. The zero time means none.
func (s *Socket) SetDeadline(t time.Time) {
	if t.IsZero() {
		s.due.Store(0)
		return
	}
	s.due.Store(t.UnixNano())
	s.hub.wheel.schedule(&s.timer, t)
}

// Close sends a goodbye with code, and closes the connection when the peer has
// answered or Options.CloseWithin has passed. It never blocks; only the first call
// counts. retryAfterMs 0 is left out of the bye frame.
func (s *Socket) Close(code notify.CloseCode, retryAfterMs int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == open {
		s.closeLocked(code, retryAfterMs)
	}
}

func (s *Socket) closeLocked(code notify.CloseCode, retryAfterMs int) {
	s.hub.stats.close(code)
	if code == notify.CloseTooSlow && len(s.queue) > 1 {
		// A frame whose first byte is written must be completed; the client
		// resumes the others.
		s.queue = s.queue[:1:1]
		s.queued = len(s.queue[0])
	}
	s.sayGoodbyeLocked(s.framing.Goodbye(code, retryAfterMs))
}

// CloseRaw is Close with a finished close frame, such as the answer to the peer's.
func (s *Socket) CloseRaw(code notify.CloseCode, frame []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == open {
		s.hub.stats.close(code)
		s.sayGoodbyeLocked(frame)
	}
}

func (s *Socket) sayGoodbyeLocked(goodbye []byte) {
	s.state = closing
	s.closeBy.Store(time.Now().Add(s.hub.o.CloseWithin).UnixNano())
	s.hub.wheel.schedule(&s.timer, time.Now().Add(s.hub.o.CloseWithin))
	s.writeLocked(goodbye)
	s.signalRoomLocked()
	if s.state == closing && s.queued == 0 && !s.framing.AnswersClose() {
		s.endLocked()
	}
}

// Ended reports whether the connection is closed.
func (s *Socket) Ended() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state == ended
}

// End closes the connection at once, without a goodbye.
func (s *Socket) End() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endLocked()
}

// endLocked closes the transport. Its reader gets an error and calls Leave.
func (s *Socket) endLocked() {
	if s.state == ended {
		return
	}
	s.state = ended
	s.queue, s.queued = nil, 0
	s.signalRoomLocked()
	s.hub.wheel.cancel(&s.timer)
	s.out.Close()
}

// tick does what is due on s and returns the time of its next tick; the zero time
// means never. It runs on the wheel's goroutine.
func (s *Socket) tick(now time.Time) time.Time {
	if by := s.closeBy.Load(); by != 0 {
		if at := time.Unix(0, by); now.Before(at) {
			return at
		}
		s.End()
		return time.Time{}
	}
	if s.dead(now.Add(-s.patience())) {
		s.hub.stats.dead.Add(1)
		s.End()
		return time.Time{}
	}
	if due := s.due.Load(); due != 0 && now.UnixNano() >= due {
		s.End()
		return time.Time{}
	}
	if expires := s.Expiry(); !expires.IsZero() && !now.Before(expires) {
		s.expire()
	}
	if now.UnixNano() >= s.pingAt {
		s.pingAt = now.Add(s.pingEvery()).UnixNano()
		s.send(s.framing.Ping())
	}
	return s.nextTick()
}

// dead reports that since the given time no byte came from a peer that answers pings,
// or that the peer took no byte of a non-empty queue.
func (s *Socket) dead(since time.Time) bool {
	if s.framing.AnswersPing() && !since.Before(time.Unix(0, s.heard.Load())) {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queued > 0 && since.UnixNano() >= s.moved
}

// nextTick is the earliest of the next ping, the moment from which the peer
// counts as dead, the expiry and the deadline. closeBy is looked at last: a close
// that comes after this has scheduled itself.
func (s *Socket) nextTick() time.Time {
	next := s.pingAt
	if s.framing.AnswersPing() {
		next = min(next, s.heard.Load()+int64(s.patience()))
	}
	for _, at := range []int64{s.expires.Load(), s.due.Load()} {
		if at != 0 {
			next = min(next, at)
		}
	}
	if by := s.closeBy.Load(); by != 0 {
		next = by
	}
	return time.Unix(0, next)
}

// patience is how long a peer may be silent, or take no byte of its queue.
func (s *Socket) patience() time.Duration { return 2*s.hub.o.Ping + s.hub.o.Ping/2 }

// pingEvery is the ping interval. A peer that does not answer pings gets one at least
// every maxHeartbeat, because only a failed write shows that it is gone.
func (s *Socket) pingEvery() time.Duration {
	if s.framing.AnswersPing() {
		return s.hub.o.Ping
	}
	return min(s.hub.o.Ping, maxHeartbeat)
}

// maxHeartbeat is the longest interval of pings on an event stream.
const maxHeartbeat = 20 * time.Second

// expire reports the expiry once: OnExpiry sets a new one or closes the socket.
func (s *Socket) expire() {
	s.expires.Store(0)
	if s.hub.o.OnExpiry != nil {
		s.hub.o.OnExpiry(s)
		return
	}
	s.Close(notify.CloseExpired, 0)
}
