package foreign

import (
	"slices"
	"time"

	"herald/sessions"
)

// memory is how long a session is remembered after its use without a connection: longer
// than a request takes to become one.
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

// ids returns the id of each session, "" if it is not remembered.
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

// Users returns the users that a session named when it was used here; none if it was not
// used recently and has no connection.
func (s *Store) Users(handle string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.known[handle]; k != nil {
		return slices.Clone(k.users)
	}
	return nil
}

// Forget drops sessions without a connection that were not used for a minute. It must be
// called periodically, or memory grows with every session that is used.
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
