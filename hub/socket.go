package hub

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"herald/notify"
)

// Wire is how one transport frames what the hub sends: WebSocket or SSE. Each
// is one comparable value shared by all its sockets. What it returns is shared
// too and never modified.
type Wire interface {
	Encode(notify.Message) []byte
	Ping() []byte
	// Goodbye is the bye frame and whatever ends the stream after it.
	Goodbye(code notify.CloseCode, retryAfterMs int) []byte
	// Answers reports whether the peer answers a goodbye, so that the
	// connection is kept for it, at most Options.CloseWithin.
	Answers() bool
	// Chatty reports whether a peer that lives sends something at least each
	// ping interval, so that one that doesn't is dead.
	Chatty() bool
}

// Transport carries one socket's bytes.
type Transport interface {
	// Write writes what the kernel takes without waiting, perhaps nothing.
	Write(p []byte) (n int, err error)
	// Drain calls step, not on this goroutine, now and whenever the connection
	// has become writable, until step returns true. step writes with the
	// function it is given, which like Write doesn't wait and fails when the
	// connection has. Write is not called before step has returned true.
	Drain(step func(write func(p []byte) (n int, err error)) (done bool))
	// Close ends the connection at once. It may be called more than once.
	Close()
}

// Socket is one client's connection, of whatever transport.
type Socket struct {
	// Static after construction.
	UserID  string
	Session string // the session's handle; "" if authenticated otherwise
	Data    any    // the server's
	hub     *Hub
	wire    Wire
	out     Transport

	// Guarded by its shard's mutex until Join, static afterwards.
	user *user

	// Guarded by user.mu, except that last belongs to the resuming goroutine
	// until the socket is live.
	live    bool
	greeted bool
	missed  bool // something for it passed before it was greeted
	left    bool // no longer among the user's sockets
	last    notify.ID

	mu     sync.Mutex
	state  state         // guarded by mu
	corked bool          // guarded by mu: the queue is held back, and Uncork or a Cork will write it
	queue  [][]byte      // guarded by mu: waiting for the transport, or held back; the first may be partly written
	queued int           // guarded by mu: bytes in queue
	moved  int64         // guarded by mu: Unix ns when the queue began, or bytes last left it
	single [1][]byte     // guarded by mu: the queue that begins with a frame held back is in here
	room   chan struct{} // guarded by mu: made by awaitRoom, closed when there is room or the socket has ended

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

// NewSocket returns a socket that writes to out. It can be closed from now on;
// it receives messages, pings and expires once it has joined.
func (h *Hub) NewSocket(userID, session string, w Wire, out Transport) *Socket {
	s := &Socket{UserID: userID, Session: session, hub: h, wire: w, out: out}
	now := time.Now()
	s.heard.Store(now.UnixNano())
	s.pingAt = now.Add(s.pingEvery()).UnixNano()
	s.timer.socket = s
	return s
}

// Heard notes that the peer lives: it has sent a byte.
func (s *Socket) Heard() { s.heard.Store(time.Now().UnixNano()) }

// SetExpiry sets when the credentials run out; the zero time means never.
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

// SetDeadline has the connection ended at t, unless another deadline is set
// before; the zero time means none.
func (s *Socket) SetDeadline(t time.Time) {
	if t.IsZero() {
		s.due.Store(0)
		return
	}
	s.due.Store(t.UnixNano())
	s.hub.wheel.schedule(&s.timer, t)
}

// Send sends one frame to this socket alone. It never blocks.
func (s *Socket) Send(event string, frame []byte) {
	s.send(s.wire.Encode(notify.Message{Event: event, Frame: string(frame)}))
}

// SendRaw sends bytes that are framed already: the answers that the transport's
// own protocol demands.
func (s *Socket) SendRaw(p []byte) { s.send(p) }

// send writes p at once if nothing waits, else queues it. A queue that would
// grow past its bound closes the socket with 4102: nobody waits for it, and it
// resumes with what it has. p is shared and never modified.
func (s *Socket) send(p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sendLocked(p)
}

// sendCorked is send, but if nothing waits c holds p back; c may be nil.
func (s *Socket) sendCorked(c *Cork, p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c == nil || s.queued > 0 || s.state != open {
		s.sendLocked(p)
		return
	}
	s.holdLocked(p, c.hold(s))
}

// holdLocked makes p the queue.
func (s *Socket) holdLocked(p []byte, now int64) {
	s.single[0] = p
	s.queue, s.queued, s.moved, s.corked = s.single[:], len(p), now, true
}

func (s *Socket) sendLocked(p []byte) {
	if s.corked && s.queued+len(p) > min(corkBytes, s.hub.o.QueueBytes) {
		s.uncorkLocked()
	}
	switch {
	case s.state != open:
	case s.queued > 0 && (s.queued+len(p) > s.hub.o.QueueBytes || len(s.queue) >= maxQueued):
		s.closeLocked(notify.CloseTooSlow, 0)
	default:
		s.writeLocked(p)
	}
}

// Hold holds p back, the first bytes of the connection, so that what is sent until
// Uncork goes with it. p is never modified.
func (s *Socket) Hold(p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holdLocked(p, time.Now().UnixNano())
}

// Uncork writes what Hold, or a Cork, has held back.
func (s *Socket) Uncork() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.uncorkLocked()
}

func (s *Socket) uncorkLocked() {
	if !s.corked {
		return
	}
	s.corked = false
	done := s.flushLocked(s.out.Write)
	if len(s.queue) == 0 || &s.queue[0] != &s.single[0] {
		s.single[0] = nil // the queue has moved on, and kept it there
	}
	if !done {
		s.out.Drain(s.flush)
	}
}

// maxQueued is how many frames may wait, however small: each costs its
// bookkeeping.
const maxQueued = 4096

// writeLocked writes or queues p.
func (s *Socket) writeLocked(p []byte) {
	if s.queued > 0 {
		s.queue = append(s.queue, p)
		s.queued += len(p)
		return
	}
	n, err := s.out.Write(p)
	if err != nil {
		s.endLocked()
		return
	}
	if n < len(p) {
		s.queue = append(s.queue, p[n:])
		s.queued, s.moved = len(p)-n, time.Now().UnixNano()
		s.out.Drain(s.flush)
	}
}

// flushBytes is how much of a queue goes into one write.
const flushBytes = 64 << 10

var flushBuffers = sync.Pool{New: func() any { b := make([]byte, 0, flushBytes); return &b }}

// flush writes what has queued up, many frames in one write. It returns true
// when nothing is left to do.
func (s *Socket) flush(write func([]byte) (int, error)) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flushLocked(write)
}

func (s *Socket) flushLocked(write func([]byte) (int, error)) bool {
	for s.queued > 0 && s.state != ended {
		n, all, err := s.writeHeadLocked(write)
		if err != nil {
			s.endLocked()
			return true
		}
		if n > 0 {
			s.consumeLocked(n)
			s.signalRoomLocked()
		}
		if n > 0 && s.queued > 0 {
			s.moved = time.Now().UnixNano()
		}
		if !all {
			return false
		}
	}
	if s.state == closing && !s.wire.Answers() {
		s.endLocked()
	}
	return true
}

// writeHeadLocked writes the head of the queue in one piece: a large frame as it
// is, small ones copied together. all is false if the kernel did not take all of it.
func (s *Socket) writeHeadLocked(write func([]byte) (int, error)) (n int, all bool, err error) {
	p := s.queue[0]
	if len(s.queue) > 1 && len(p) < flushBytes {
		buf := flushBuffers.Get().(*[]byte)
		defer flushBuffers.Put(buf)
		p = s.gatherLocked((*buf)[:0])
	}
	n, err = write(p)
	return n, n == len(p), err
}

func (s *Socket) gatherLocked(buf []byte) []byte {
	for _, p := range s.queue {
		if len(buf)+len(p) > flushBytes {
			break
		}
		buf = append(buf, p...)
	}
	return buf
}

func (s *Socket) consumeLocked(n int) {
	s.queued -= n
	for n > 0 && n >= len(s.queue[0]) {
		n -= len(s.queue[0])
		s.queue[0] = nil
		s.queue = s.queue[1:]
	}
	if n > 0 {
		s.queue[0] = s.queue[0][n:]
	}
	if len(s.queue) == 0 {
		s.queue = nil
	}
}

// awaitRoom waits until at most half the queue is taken or ctx ends. It returns
// false once the socket has ended or is closing, or ctx has.
func (s *Socket) awaitRoom(ctx context.Context) bool {
	for {
		room, isOpen := s.hasRoom()
		if room == nil {
			return isOpen
		}
		select {
		case <-room:
		case <-ctx.Done():
			return false
		}
	}
}

// hasRoom returns what to wait for if there is no room; nil if there is, or if
// the socket isn't open.
func (s *Socket) hasRoom() (wait <-chan struct{}, isOpen bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != open || s.queued <= s.hub.o.QueueBytes/2 {
		return nil, s.state == open
	}
	if s.room == nil {
		s.room = make(chan struct{})
	}
	return s.room, true
}

func (s *Socket) signalRoomLocked() {
	if s.room != nil && (s.state != open || s.queued <= s.hub.o.QueueBytes/2) {
		close(s.room)
		s.room = nil
	}
}

// Close says goodbye with code and ends the connection when the peer has
// answered or Options.CloseWithin has passed. Only the first call counts.
// retryAfterMs 0 is left out of the bye frame.
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
		// What it has not begun to receive it gets when it resumes.
		s.queue = s.queue[:1:1]
		s.queued = len(s.queue[0])
	}
	s.sayGoodbyeLocked(s.wire.Goodbye(code, retryAfterMs))
}

// CloseRaw is Close for a transport whose peer or library has already found the
// words: frame is a finished close frame.
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
	if s.state == closing && s.queued == 0 && !s.wire.Answers() {
		s.endLocked()
	}
}

// Ended reports whether the connection is over.
func (s *Socket) Ended() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state == ended
}

// End ends the connection at once, without a goodbye.
func (s *Socket) End() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endLocked()
}

// endLocked ends the transport. Whoever reads from it notices and calls Leave.
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

// tick does what is due on s and returns when it wants the next tick; the zero
// time means never. It runs on the wheel's goroutine.
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
		s.send(s.wire.Ping())
	}
	return s.nextTick()
}

// dead reports that nothing has been heard since the given time from a peer
// that should talk, or that it has taken nothing of what waits for it.
func (s *Socket) dead(since time.Time) bool {
	if s.wire.Chatty() && !since.Before(time.Unix(0, s.heard.Load())) {
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
	if s.wire.Chatty() {
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

// patience is how long a peer may be silent, or take nothing of what waits for it.
func (s *Socket) patience() time.Duration { return 2*s.hub.o.Ping + s.hub.o.Ping/2 }

// pingEvery is the ping interval; a peer that never speaks is written to at
// least every maxHeartbeat, because only that tells that it is gone.
func (s *Socket) pingEvery() time.Duration {
	if s.wire.Chatty() {
		return s.hub.o.Ping
	}
	return min(s.hub.o.Ping, maxHeartbeat)
}

// maxHeartbeat is the longest that an event stream is silent.
const maxHeartbeat = 20 * time.Second

// expire is due once: whoever handles it sets a new expiry or closes.
func (s *Socket) expire() {
	s.expires.Store(0)
	if s.hub.o.Expired != nil {
		s.hub.o.Expired(s)
		return
	}
	s.Close(notify.CloseExpired, 0)
}
