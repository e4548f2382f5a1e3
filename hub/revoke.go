package hub

import (
	"slices"
	"sync"
	"time"

	"herald/notify"
)

// Revoke closes the user's sockets that were authenticated by one of the
// sessions, with 4002, and refuses for a minute the joins that were
// authenticated before.
func (h *Hub) Revoke(userID string, sessions []string) {
	sh := h.shard(userID)
	sh.mu.Lock() // orders this against Join, which looks at revoked under the same lock
	h.revoked.add(sessions)
	u := sh.users[userID]
	sh.mu.Unlock()
	if u == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, s := range u.sockets {
		if s.Session != "" && slices.Contains(sessions, s.Session) {
			s.Close(notify.CloseRevoked, 0)
		}
	}
}

// Sessions calls f with the sockets that a session authenticated, in groups of
// at most n, until f returns false.
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
	u := h.user(userID)
	if u == nil {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	var list []*Socket
	for _, s := range u.sockets {
		if s.Session == session {
			list = append(list, s)
		}
	}
	return list
}

// revocations remembers for a while which sessions were revoked:
//
//	connect: session found          revoke: deleted, announced
//	                                revoke: no socket here yet
//	connect: Join                   → must be refused
//
// Two generations make forgetting cheap: each lives for one to two minutes.
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
