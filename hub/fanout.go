package hub

import (
	"strings"

	"herald/notify"
)

// fanout is what waits to be sent to one user's sockets, and the state of the
// goroutine that sends it. A user has one while a repair is sent, or while
// messages go out to fanMin sockets or more: thousands of writes take tens of
// milliseconds, for which Deliver, and so the subscription, must not wait.
//
// The goroutine holds user.mu only to decide what each socket of a chunk is sent.
// It writes without the lock, and what arrives meanwhile is joined to one write
// for each socket:
//
//	Deliver 7           fan: lock, 7 for sockets 1…64, unlock, write them
//	Deliver 8, 9: wait  fan: lock, 7 for sockets 65…100, unlock, write them
//	                    fan: lock, 8 and 9 as one piece for sockets 1…64, …
//
// While user.fan is set, only its goroutine sends the user's live sockets
// anything that has an order, so nothing overtakes what waits. Socket.last
// decides what a socket is sent, so sockets may go live, leave and join meanwhile.
type fanout struct {
	// Guarded by user.mu.
	waiting []work
	bytes   int // of waiting

	// Owned by the fanout's goroutine.
	batch   batch
	sockets []*Socket // the user's when the batch was begun
	next    int       // index in sockets of the first that was not served
	writes  []write   // what the current chunk is sent
}

const (
	fanMin   = 64       // sockets from which on a user's messages go through a fanout
	fanChunk = 64       // sockets served each time that user.mu is taken
	fanPiece = 64 << 10 // bytes after which a batch takes no further message
	fanMost  = 4 << 20  // bytes after which no further message may wait
)

// kind is what a message is for the sockets of its user.
type kind uint8

const (
	entry     kind = iota // stored: for live sockets that don't have it
	ephemeral             // not stored: for sockets that got their hello
	gap                   // live sockets that lack what precedes the message get a gap frame
	skip                  // expired: moves live sockets on and sends nothing
	lost                  // nothing retained up to its id: a gap frame that moves live sockets on
	mark                  // for no socket: what came before has been written
)

type work struct {
	kind    kind
	message notify.Frame
	reached chan struct{} // closed when a mark's turn has come; nil for the other kinds
}

type write struct {
	socket *Socket
	bytes  []byte
}

// batch is messages of one kind that are sent together.
type batch struct {
	kind     kind
	messages []notify.Frame
	joined   encodings
}

// fansLocked reports whether what is sent to u has to go through a fanout.
func (h *Hub) fansLocked(u *user) bool { return u.fan != nil || len(u.sockets) >= h.fanMin }

// fanoutLocked returns u's fanout and starts it if there is none. The caller must
// add work before it releases user.mu.
func (h *Hub) fanoutLocked(u *user) *fanout {
	if u.fan == nil {
		u.fan = &fanout{writes: make([]write, 0, fanChunk)}
		h.fans.Go(func() {
			for h.fanStep(u, fanChunk) {
			}
		})
	}
	return u.fan
}

func (f *fanout) addLocked(k kind, m notify.Frame) {
	f.waiting = append(f.waiting, work{kind: k, message: m})
	f.bytes += len(m.JSON)
}

// sendLocked sends m to u's sockets, corked by c unless that is nil. It returns
// false, and sends nothing, if m has bytes and too many wait already. The caller
// may reuse the memory of m.JSON afterwards.
func (h *Hub) sendLocked(c *Cork, u *user, k kind, m notify.Frame) bool {
	if h.fansLocked(u) {
		f := h.fanoutLocked(u)
		if f.bytes > fanMost && m.JSON != "" {
			return false
		}
		m.JSON = strings.Clone(m.JSON)
		f.addLocked(k, m)
		return true
	}
	var joined encodings
	one := [1]notify.Frame{m}
	delivered := 0
	for _, s := range u.sockets {
		p, n := s.nextLocked(k, one[:], &joined)
		if p != nil {
			s.sendCorked(c, p)
		}
		delivered += n
	}
	h.stats.delivered.Add(uint64(delivered))
	return true
}

// awaitFanout returns when all that waited for u's sockets has been written to
// their transports or queues.
func (h *Hub) awaitFanout(u *user) {
	u.mu.Lock()
	if u.fan == nil {
		u.mu.Unlock()
		return
	}
	reached := make(chan struct{})
	u.fan.waiting = append(u.fan.waiting, work{kind: mark, reached: reached})
	u.mu.Unlock()
	<-reached
}

// fanStep serves the next n sockets. It returns false when nothing waits; then u
// has no fanout any more.
func (h *Hub) fanStep(u *user, n int) (more bool) {
	u.mu.Lock()
	f := u.fan
	if f == nil || f.next == len(f.sockets) && !f.beginLocked(u, min(fanPiece, h.o.QueueBytes/4)) {
		u.fan = nil
		u.mu.Unlock()
		return false
	}
	b, chunk := &f.batch, f.sockets[f.next:min(f.next+n, len(f.sockets))]
	delivered := 0
	for _, s := range chunk {
		p, n := s.nextLocked(b.kind, b.messages, &b.joined)
		if p != nil {
			f.writes = append(f.writes, write{s, p})
		}
		delivered += n
	}
	f.next += len(chunk)
	u.mu.Unlock()
	h.stats.delivered.Add(uint64(delivered))
	for _, w := range f.writes {
		w.socket.send(w.bytes)
	}
	clear(f.writes)
	f.writes = f.writes[:0]
	return true
}

// beginLocked begins the next batch, of about most bytes; false if nothing waits.
// All earlier batches have been written.
func (f *fanout) beginLocked(u *user, most int) bool {
	for len(f.waiting) > 0 && f.waiting[0].kind == mark {
		close(f.waiting[0].reached)
		f.waiting = f.waiting[1:]
	}
	if len(f.waiting) == 0 {
		return false
	}
	f.batch = batch{kind: f.waiting[0].kind, messages: f.batch.messages[:0]}
	joins := f.batch.kind == entry || f.batch.kind == ephemeral
	n, bytes := 0, 0
	for n < len(f.waiting) && f.waiting[n].kind == f.batch.kind && (n == 0 || joins && bytes < most) {
		f.batch.messages = append(f.batch.messages, f.waiting[n].message)
		bytes += len(f.waiting[n].message.JSON)
		n++
	}
	clear(f.waiting[:n])
	f.waiting = f.waiting[n:]
	f.bytes -= bytes
	f.sockets, f.next = append(f.sockets[:0], u.sockets...), 0
	return true
}

// nextLocked returns what s is sent of the messages, which are of one kind, nil for
// nothing, and how many messages that delivers. It counts them as sent: the caller
// must send them before anything else that has an order. joined are the encodings of
// all the messages as one piece. Called with user.mu held.
func (s *Socket) nextLocked(k kind, messages []notify.Frame, joined *encodings) (p []byte, delivered int) {
	newest := &messages[len(messages)-1]
	switch {
	case k == ephemeral && !s.greeted:
		s.missed = true
		return nil, 0
	case k == ephemeral:
		return joined.of(s.framing, messages), len(messages)
	case !s.live || s.last >= newest.ID || k == gap && s.last == newest.Prev:
		return nil, 0
	case k == gap:
		return s.gapFrame(newest.ID), 0
	case k == lost:
		return s.lostFrame(newest.ID), 0
	case k == skip:
		s.last = newest.ID
		return nil, 0
	}
	rest := messages
	for rest[0].ID <= s.last { // s has read these from the log
		rest = rest[1:]
	}
	s.last = newest.ID
	if len(rest) < len(messages) {
		return join(s.framing, rest), len(rest)
	}
	return joined.of(s.framing, messages), len(messages)
}
