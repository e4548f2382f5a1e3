package foreign

import (
	"slices"
	"time"

	"herald/sessions"
)

// memory is how long a session is known after its use without a connection that
// holds it: longer than any request takes to become a connection.
const memory = time.Minute

func (s *Store) remember(id string, session Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.known[session.Handle]
	if k == nil {
		k = &known{id: id}
		s.known[session.Handle] = k
	}
	k.used = time.Now()
	if !slices.Contains(k.users, session.UserID) {
		k.users = append(k.users, session.UserID)
	}
}

// ids returns the id of each session, "" of one that is not known.
func (s *Store) ids(held []sessions.Ref) []string {
	ids := make([]string, len(held))
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, h := range held {
		if k := s.known[h.Handle]; k != nil {
			ids[i] = k.id
		}
	}
	return ids
}

// Users returns whom a session named when it was used here; nobody if it was not
// used lately and no connection holds it.
func (s *Store) Users(handle string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.known[handle]; k != nil {
		return slices.Clone(k.users)
	}
	return nil
}

// Forget drops what is known of sessions that no connection holds and that have
// not been used for a minute. It must be called now and then, or memory grows
// with every session that is ever used.
func (s *Store) Forget(held map[string]bool) {
	old := time.Now().Add(-memory)
	s.mu.Lock()
	defer s.mu.Unlock()
	for handle, k := range s.known {
		if !held[handle] && k.used.Before(old) {
			delete(s.known, handle)
		}
	}
}
