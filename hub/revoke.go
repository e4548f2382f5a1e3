package hub

import (
	"slices"
	"sync"
	"time"

	"herald/notify"
)

// Revoke closes the user's sockets that were authenticated by one of the
// sessions, with 4002. For at least a minute it also refuses joins that were
// authenticated before. The sockets get nothing that is announced later. If there
// are many, Revoke returns before they are closed.
func (h *Hub) Revoke(userID string, sessions []string) {
	sh := h.shard(userID)
	sh.mu.Lock() // a Join either sees revoked or is among the sockets below
	h.revoked.add(sessions)
	sh.mu.Unlock()
	list := h.sessionSockets(userID, sessions, (*Socket).cutLocked)
	if len(list) < h.fanMin {
		revoke(list)
		return
	}
	h.fans.Go(func() { revoke(list) }) // the caller is the subscription, which must not wait
}

func revoke(sockets []*Socket) {
	for _, s := range sockets {
		s.Close(notify.CloseRevoked, 0)
	}
}

// cutLocked excludes s from what is announced from now on. Called with user.mu held.
func (s *Socket) cutLocked() {
	if s.live {
		s.user.live--
	}
	s.live, s.greeted, s.cut = false, false, true
}

// Sessions calls f with all sockets that a session authenticated, in batches of at
// most n, until f returns false. No lock is held while f runs.
func (h *Hub) Sessions(n int, f func([]*Socket) bool) {
	list := slices.DeleteFunc(h.all(), func(s *Socket) bool { return s.Session == "" })
	for group := range slices.Chunk(list, n) {
		if !f(group) {
			return
		}
	}
}

// OfSession returns the user's sockets that the session authenticated.
func (h *Hub) OfSession(userID, session string) []*Socket {
	return h.sessionSockets(userID, []string{session}, func(*Socket) {})
}

// sessionSockets calls locked with each of the user's sockets that one of the
// sessions authenticated, and returns them.
func (h *Hub) sessionSockets(userID string, sessions []string, locked func(*Socket)) (list []*Socket) {
	u := h.user(userID)
	if u == nil {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, s := range u.sockets {
		if s.Session != "" && slices.Contains(sessions, s.Session) {
			locked(s)
			list = append(list, s)
		}
	}
	return list
}

// revocations remembers recently revoked sessions, because of this schedule:
//
//	connect: session found          revoke: deleted, announced
//	                                revoke: no socket here yet
//	connect: Join                   → must be refused
//
// Two generations make forgetting cheap: an entry lives for one to two minutes.
type revocations struct {
	mu         sync.Mutex
	turned     time.Time            // guarded by mu: when young was begun
	young, old map[string]time.Time // guarded by mu: handle → when revoked
}

// revocationMemory is longer than any connection takes from authentication to Join.
const revocationMemory = time.Minute

func (r *revocations) add(sessions []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if now.Sub(r.turned) > revocationMemory {
		r.old, r.young, r.turned = r.young, make(map[string]time.Time), now
	}
	for _, handle := range sessions {
		r.young[handle] = now
	}
}

// since reports whether the session was revoked at or after t.
func (r *revocations) since(session string, t time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, generation := range []map[string]time.Time{r.young, r.old} {
		if at, ok := generation[session]; ok && !at.Before(t) {
			return true
		}
	}
	return false
}
