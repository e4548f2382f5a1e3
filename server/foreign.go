package server

import (
	"context"
	"time"

	"github.com/gofiber/fiber/v2"

	"herald/hub"
	"herald/sessions/foreign"
)

// This file is what is different when the sessions are another program's: they
// are read and never written, and nobody announces that one is gone, so every
// open connection's is looked up again and again.

var errForeign = &problem{status: 409, code: "foreign_sessions", detail: "sessions are kept by another program here (HERALD_SESSION_FORMAT): create, change, list and end them there"}

// ownSessions refuses what only the program that keeps the sessions can do.
func (s *Server) ownSessions(c *fiber.Ctx) error {
	if s.Foreign != nil {
		return errForeign
	}
	return c.Next()
}

// expiries is how the sessions of open connections are looked up again.
func (s *Server) expiries() expiries {
	if s.Foreign != nil {
		return func(ctx context.Context, group []*hub.Socket) ([]time.Time, error) {
			held := make([]foreign.Held, len(group))
			for i, sock := range group {
				held[i] = foreign.Held{Handle: sock.Session, UserID: sock.UserID}
			}
			return s.Foreign.Expiries(ctx, held)
		}
	}
	return func(ctx context.Context, group []*hub.Socket) ([]time.Time, error) {
		handles := make([]string, len(group))
		for i, sock := range group {
			handles[i] = sock.Session
		}
		return s.Sessions.Expiries(ctx, handles)
	}
}

// checkForeign has every open session looked up, and what is known of others
// forgotten.
func (s *Server) checkForeign() {
	held := map[string]bool{}
	s.Hub.Sessions(expiryGroup, func(group []*hub.Socket) bool {
		for _, sock := range group {
			held[sock.Session] = true
		}
		s.watch.add(group...)
		return true
	})
	s.Foreign.Forget(held)
}

// SessionEvent takes a keyspace notification about a foreign session and has its
// connections looked up at once. It never blocks.
func (s *Server) SessionEvent(channel, event string) {
	handle, ok := s.Foreign.Changed(channel, event)
	if !ok {
		return
	}
	for _, userID := range s.Foreign.Users(handle) {
		s.watch.add(s.Hub.OfSession(userID, handle)...)
	}
}

// foreignSession is what GET /sessions/current can say of one.
type foreignSession struct {
	Handle    string     `json:"handle"`
	UserID    string     `json:"userId"`
	ExpiresAt *time.Time `json:"expiresAt,omitempty"`
}

func showForeign(v visitor) foreignSession {
	shown := foreignSession{Handle: v.SessionHandle, UserID: v.UserID}
	if !v.Expires.IsZero() {
		shown.ExpiresAt = &v.Expires
	}
	return shown
}
