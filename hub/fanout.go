package hub

import (
	"strings"

	"herald/notify"
)

// A user with many sockets is served beside whoever delivers, who must not be
// kept: thousands of writes take tens of milliseconds. What is announced meanwhile
// waits, and then goes out together, in one write to each socket.
//
//	deliver 7: fan out 7, in chunks; user.mu is free between them
//	deliver 8, 9: wait
//	          7 has been written to all: 8 and 9 are one piece, fan it out
//
// Where a socket stands decides what it is sent, as in appendLocked, so sockets
// may go live, leave and join in between. Whoever moves the live sockets on by
// other means calls settleLocked first, so that nothing overtakes what waits here.
type fanout struct {
	// Guarded by user.mu.
	waiting []notify.Frame
	bytes   int // of waiting
	batch   batch
	sockets []*Socket // the user's when the batch was begun
	next    int       // the first of them that has not been served
}

const (
	fanMin   = 64       // sockets of a user who is served like this
	fanChunk = 64       // sockets served before user.mu is given up
	fanPiece = 64 << 10 // bytes, about, of a batch
	fanMost  = 4 << 20  // bytes that may wait: what goes beyond is read from the log
)

// batch is messages of one kind, all stored or none, as they are sent.
type batch struct {
	messages []notify.Frame
	joined   encodings
}

func (b *batch) stored() bool { return b.messages[0].ID != 0 }

// of returns all messages of the batch as one piece.
func (b *batch) of(w Framing) []byte { return b.joined.of(w, b.messages...) }

// fansLocked reports whether what is sent to u has to go through a fanout.
func (h *Hub) fansLocked(u *user) bool { return u.fan != nil || len(u.sockets) >= h.fanMin }

// fanLocked has m sent to u's sockets; false if there is no room for it.
func (h *Hub) fanLocked(u *user, m notify.Frame) bool {
	if u.fan == nil {
		u.fan = &fanout{}
		h.fans.Go(func() { h.fan(u) })
	}
	f := u.fan
	if f.bytes > fanMost {
		return false
	}
	m.JSON = strings.Clone(m.JSON) // whoever delivers keeps it only that long
	f.waiting = append(f.waiting, m)
	f.bytes += len(m.JSON)
	return true
}

// fan serves u until nothing waits.
func (h *Hub) fan(u *user) {
	for more := true; more; {
		u.mu.Lock()
		more = h.fanSomeLocked(u, fanChunk)
		u.mu.Unlock()
	}
}

// settleLocked sends everything that waits for u's sockets.
func (h *Hub) settleLocked(u *user) {
	for h.fanSomeLocked(u, fanChunk) {
	}
}

// fanSomeLocked serves the next n sockets; false when nothing waits.
func (h *Hub) fanSomeLocked(u *user, n int) (more bool) {
	f := u.fan
	if f == nil {
		return false
	}
	if f.next == len(f.sockets) && !f.beginLocked(u) {
		u.fan = nil
		return false
	}
	for _, s := range f.sockets[f.next:min(f.next+n, len(f.sockets))] {
		h.serveLocked(s, &f.batch)
		f.next++
	}
	return true
}

// beginLocked begins the next batch; false if nothing waits.
func (f *fanout) beginLocked(u *user) bool {
	if len(f.waiting) == 0 {
		return false
	}
	stored, bytes, n := f.waiting[0].ID != 0, 0, 0
	for n < len(f.waiting) && bytes < fanPiece && (f.waiting[n].ID != 0) == stored {
		bytes += len(f.waiting[n].JSON)
		n++
	}
	f.batch = batch{messages: f.waiting[:n:n]}
	f.waiting = f.waiting[n:]
	f.bytes -= bytes
	f.sockets, f.next = append(f.sockets[:0], u.sockets...), 0
	return true
}

// serveLocked sends s what it wants of b.
func (h *Hub) serveLocked(s *Socket, b *batch) {
	if !b.stored() {
		if !s.greeted {
			s.missed = true
			return
		}
		h.stats.delivered.Add(uint64(len(b.messages)))
		s.send(b.of(s.framing))
		return
	}
	newest := b.messages[len(b.messages)-1].ID
	if !s.live || s.last >= newest {
		return
	}
	if s.last < b.messages[0].ID {
		h.stats.delivered.Add(uint64(len(b.messages)))
		s.send(b.of(s.framing))
	} else { // it has read some of them from the log
		for _, m := range b.messages {
			if m.ID > s.last {
				h.stats.delivered.Add(1)
				s.send(s.framing.Encode(m))
			}
		}
	}
	s.last = newest
}
