package hub

import (
	"context"
	"sync"
	"time"

	"herald/notify"
)

// A frame is written at once if the socket's queue is empty; otherwise it is
// appended. A queue waits until the transport is writable (Transport.Drain), or is
// corked until the one who corked it calls Uncork.

// Send sends one frame to this socket alone. It never blocks.
func (s *Socket) Send(event string, frame []byte) {
	s.send(s.framing.Encode(notify.Frame{Event: event, JSON: string(frame)}))
}

// SendRaw sends bytes that are framed already, such as a WebSocket pong. It never
// blocks.
func (s *Socket) SendRaw(p []byte) { s.send(p) }

// send writes p at once if the queue is empty, or else queues it. If the queue would
// exceed Options.QueueBytes or maxQueued, it closes the socket with 4102: a slow
// consumer delays no other, and resumes later. p is shared and never modified.
func (s *Socket) send(p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sendLocked(p)
}

// sendCorked is send, except that it corks a socket with an empty queue; c may be nil.
func (s *Socket) sendCorked(c *Cork, p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c == nil || s.queued > 0 || s.state != open {
		s.sendLocked(p)
		return
	}
	s.corkLocked(p, c.addLocked(s))
}

// corkLocked makes p the whole queue, written by Uncork.
func (s *Socket) corkLocked(p []byte, now int64) {
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

// Cork queues p, the first bytes of the connection. Uncork writes them together with
// what is sent until then. p is never modified.
func (s *Socket) Cork(p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.corkLocked(p, time.Now().UnixNano())
}

// Uncork writes what Socket.Cork, or a Cork, has queued.
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

// maxQueued bounds the frames in a queue, however small: each costs a slice header.
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

// flushBytes bounds the bytes of queued frames that are copied into one write.
const flushBytes = 64 << 10

var flushBuffers = sync.Pool{New: func() any { b := make([]byte, 0, flushBytes); return &b }}

// flush writes the queue, many frames in one write. It returns true when the queue is
// empty or the socket closed.
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
		if !all {
			if n > 0 {
				s.moved = time.Now().UnixNano()
			}
			return false
		}
	}
	if s.state == closing && !s.framing.AnswersClose() {
		s.endLocked()
	}
	return true
}

// writeHeadLocked writes the head of the queue: a large frame as it is, small ones
// copied together. all is false if the kernel took only a part.
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

// awaitRoom waits until the queue is at most half full. It returns false if the
// socket is closing or closed, or ctx ends first.
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

// hasRoom returns a channel to wait for while the queue is more than half full, or
// nil if it isn't or the socket isn't open.
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
