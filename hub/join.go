package hub

import (
	"context"
	"slices"
	"time"

	"herald/notify"
)

// Join adds s to its user's sockets. From then on s is counted, Revoke and Drain
// close it, and GoLive notices what is announced for the user. authenticated is when
// the check of the credentials began. Errors: ErrDraining, ErrRevoked if the session
// was revoked since authenticated, ErrFull, ErrTooMany.
func (h *Hub) Join(s *Socket, authenticated time.Time) error {
	err := h.add(s, authenticated)
	if err == nil {
		h.o.OnChange(s.UserID)
	}
	return err
}

func (h *Hub) add(s *Socket, authenticated time.Time) error {
	sh := h.shard(s.UserID)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if h.draining.Load() { // under the lock that Drain takes to list the sockets
		return ErrDraining
	}
	if s.Session != "" && h.revoked.since(s.Session, authenticated) {
		return ErrRevoked
	}
	u := sh.users[s.UserID]
	switch {
	case h.Full():
		return ErrFull
	case u != nil && h.o.MaxPerUser > 0 && len(u.sockets) >= h.o.MaxPerUser:
		return ErrTooMany
	case !h.reserve():
		return ErrFull
	}
	if u == nil {
		u = &user{id: s.UserID}
		sh.users[s.UserID] = u
	}
	u.mu.Lock()
	u.sockets = append(u.sockets, s)
	u.mu.Unlock()
	s.user = u
	h.wheel.schedule(&s.timer, time.Unix(0, s.pingAt))
	return nil
}

// reserve counts one socket more unless the node is full. Other shards reserve at
// the same time.
func (h *Hub) reserve() bool {
	for {
		n := h.sockets.Load()
		if h.fullAt(n) {
			return false
		}
		if h.sockets.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Leave removes s from its user's sockets and closes its transport. It may be called
// more than once and for a socket that never joined.
func (h *Hub) Leave(s *Socket) {
	s.End()
	if !h.remove(s) {
		return
	}
	h.o.OnChange(s.UserID)
	if h.sockets.Add(-1) == 0 && h.draining.Load() {
		h.signalEmpty()
	}
}

func (h *Hub) remove(s *Socket) bool {
	sh := h.shard(s.UserID)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	u := s.user
	if u == nil {
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	i := slices.Index(u.sockets, s)
	if i < 0 {
		return false
	}
	u.sockets[i] = u.sockets[len(u.sockets)-1]
	u.sockets[len(u.sockets)-1] = nil
	u.sockets = u.sockets[:len(u.sockets)-1]
	s.cutLocked()
	if len(u.sockets) == 0 {
		delete(sh.users, s.UserID)
	}
	return true
}

// Full reports whether the node holds as many sockets as Options.MaxSockets allows.
func (h *Hub) Full() bool { return h.fullAt(h.sockets.Load()) }

func (h *Hub) fullAt(sockets int64) bool {
	return h.o.MaxSockets > 0 && sockets >= int64(h.o.MaxSockets)
}

// Draining reports whether Drain has begun.
func (h *Hub) Draining() bool { return h.draining.Load() }

// Greet sends the hello frame, the first of every connection, and sets the client's
// position to last. It returns true if an ephemeral notification or a read frame was
// announced since the join: hello may be older than that.
func (s *Socket) Greet(hello []byte, last notify.ID) (missed bool) {
	u := s.user
	u.mu.Lock()
	defer u.mu.Unlock()
	s.last, s.greeted = last, !s.cut
	s.send(s.framing.Encode(notify.Frame{Event: "hello", ID: last, JSON: string(hello)}))
	return s.missed
}

// Resume sends entries of the log, in order, with a gap frame wherever an entry
// doesn't continue what the client has. It waits while the queue is more than half
// full, so a replay never makes a client a slow consumer. It returns false when
// the socket is closed or ctx ends.
func (s *Socket) Resume(ctx context.Context, entries []notify.Frame) bool {
	for _, m := range entries {
		if m.ID <= s.last {
			continue
		}
		if m.Prev != s.last {
			s.send(s.gapFrame(m.ID))
		}
		s.last = m.ID
		if m.JSON == "" { // expired: it counts for the chain only
			continue
		}
		if !s.awaitRoom(ctx) {
			return false
		}
		s.hub.stats.delivered.Add(1)
		s.send(s.framing.Encode(m))
	}
	return true
}

// Last returns the id up to which s was sent everything. Only for the goroutine that
// resumes s.
func (s *Socket) Last() notify.ID { return s.last }

// gapFrame returns the gap frame that says that nothing between the client's last
// id and next is retained.
func (s *Socket) gapFrame(next notify.ID) []byte {
	s.hub.stats.gaps.Add(1)
	return s.framing.Encode(gapMessage(s.last, next))
}

// lostFrame returns the gap frame that says that nothing from the client's last id
// up to newest is retained, and moves s to newest.
func (s *Socket) lostFrame(newest notify.ID) []byte {
	s.hub.stats.gaps.Add(1)
	m := gapMessage(s.last, 0)
	m.ID, s.last = newest, newest
	return s.framing.Encode(m)
}

// SendGap sends a gap frame for everything up to newest that the client doesn't
// have, and moves its position there. Only for the goroutine that resumes s.
func (s *Socket) SendGap(newest notify.ID) { s.send(s.lostFrame(newest)) }

// GoLive makes s receive what is announced from now on. target is what Target
// returned before the last read of the log began. GoLive returns false if more was
// announced since; the caller must read the log again.
//
//	announce 7 → Deliver sees s resuming, sets seen = 7
//	target = 6, read finds 6           GoLive(6): seen 7 > 6, read again
//	target = 7, read finds 7           GoLive(7): live
//
// What a socket has read counts as announced, because its announcement may still
// be on its way:
//
//	a and b ask for the newest id: 0   7 is stored, its announcement under way
//	a reads 7 and goes live            seen = 7
//	b: GoLive(0): seen 7 > 0, read again, or b would get a gap frame for 7
//
// Nothing announced before the flip can be missing, because everything is in
// the log before it is announced; nothing after it can be missing, because
// Deliver takes the same lock.
func (s *Socket) GoLive(target notify.ID) bool {
	u := s.user
	u.mu.Lock()
	defer u.mu.Unlock()
	if s.cut {
		return true // it has left or is revoked
	}
	if u.seen > target {
		return false
	}
	if u.live > 0 && s.last < u.last { // the others have what the log has lost meanwhile
		s.SendGap(u.last)
	}
	if u.live == 0 {
		u.last = s.last
	}
	u.seen = max(u.seen, s.last)
	u.live++
	s.live = true
	return true
}
