package server

import (
	"context"
	"encoding/json"
	"time"

	"github.com/gofiber/fiber/v2"

	"herald/notify"
	"herald/sessions"
)

// SessionManager is implemented by Deps.Sessions if the gateway itself keeps the
// sessions. Sessions of another program can be looked up, but not managed.
type SessionManager interface {
	Create(ctx context.Context, userID string, data map[string]json.RawMessage) (id string, _ sessions.Session, _ error)
	Peek(ctx context.Context, handle string) (sessions.Session, error)
	List(ctx context.Context, userID string) ([]sessions.Session, error)
	Update(ctx context.Context, handle string, data map[string]json.RawMessage) (sessions.Session, error)
	Revoke(ctx context.Context, handle string) error
	RevokeAll(ctx context.Context, userID string) (int, error)
}

var errForeign = &problem{status: 409, code: "foreign_sessions", detail: "sessions are kept by another program here (HERALD_SESSION_FORMAT): create, change, list and end them there"}

// manage calls f with the SessionManager, or answers 409 if there is none.
func (s *Server) manage(f func(*fiber.Ctx, SessionManager) error) fiber.Handler {
	return func(c *fiber.Ctx) error {
		m, ok := s.Sessions.(SessionManager)
		if !ok {
			return errForeign
		}
		return f(c, m)
	}
}

// sessionBody is a session as the API shows it: its handle, never its secret.
type sessionBody struct {
	SessionID         string                     `json:"sessionId,omitempty"` // only in the answer to POST
	Handle            string                     `json:"handle"`
	UserID            string                     `json:"userId"`
	CreatedAt         time.Time                  `json:"createdAt"`
	LastUsedAt        time.Time                  `json:"lastUsedAt"`
	ExpiresAt         time.Time                  `json:"expiresAt"`
	AbsoluteExpiresAt time.Time                  `json:"absoluteExpiresAt"`
	Data              map[string]json.RawMessage `json:"data,omitempty"`
}

func showSession(id string, s sessions.Session) sessionBody {
	return sessionBody{
		SessionID: id, Handle: s.Handle, UserID: s.UserID, CreatedAt: s.CreatedAt, LastUsedAt: s.LastUsedAt,
		ExpiresAt: s.ExpiresAt, AbsoluteExpiresAt: s.AbsoluteExpiresAt, Data: s.Data,
	}
}

// createSession is POST /sessions.
func (s *Server) createSession(c *fiber.Ctx, m SessionManager) error {
	r, err := newSession(c)
	if err != nil {
		return err
	}
	id, session, err := m.Create(s.ctx, r.UserID, r.Data)
	if err != nil {
		return err
	}
	return answerJSON(c, fiber.StatusCreated, showSession(id, session))
}

// newSession parses a body that must name a user.
func newSession(c *fiber.Ctx) (notify.SessionRequest, error) {
	r, err := sessionRequest(c)
	if err == nil && r.UserID == "" {
		err = &notify.FieldError{Field: "userId", Problem: "is required"}
	}
	return r, err
}

func sessionRequest(c *fiber.Ctx) (notify.SessionRequest, error) {
	body, err := jsonBody(c)
	if err != nil {
		return notify.SessionRequest{}, err
	}
	return notify.ParseSessionRequest(body)
}

// updateSession is PATCH /sessions/<handle>: it merges data.
func (s *Server) updateSession(c *fiber.Ctx, m SessionManager) error {
	handle, err := handleParam(c)
	if err != nil {
		return err
	}
	r, err := sessionRequest(c)
	if err != nil {
		return err
	}
	if r.UserID != "" {
		return &notify.FieldError{Field: "userId", Problem: "cannot be changed"}
	}
	if r.Data == nil {
		return &notify.FieldError{Field: "data", Problem: "is required"}
	}
	session, err := m.Update(s.ctx, handle, r.Data)
	if err != nil {
		return err
	}
	return answerJSON(c, fiber.StatusOK, showSession("", session))
}

// revokeSession is DELETE /sessions/<handle>.
func (s *Server) revokeSession(c *fiber.Ctx, m SessionManager) error {
	handle, err := handleParam(c)
	if err != nil {
		return err
	}
	if err := m.Revoke(s.ctx, handle); err != nil {
		return err
	}
	return answerJSON(c, fiber.StatusOK, revokedBody{Revoked: 1})
}

type revokedBody struct {
	Revoked int `json:"revoked"`
}

// revokeUser is DELETE /users/<id>/sessions.
func (s *Server) revokeUser(c *fiber.Ctx, m SessionManager) error {
	userID, err := userParam(c)
	if err != nil {
		return err
	}
	return s.revokeAll(c, m, userID)
}

func (s *Server) revokeAll(c *fiber.Ctx, m SessionManager, userID string) error {
	n, err := m.RevokeAll(s.ctx, userID)
	if err != nil {
		return err
	}
	return answerJSON(c, fiber.StatusOK, revokedBody{Revoked: n})
}

// listSessions is GET /users/<id>/sessions.
func (s *Server) listSessions(c *fiber.Ctx, m SessionManager) error {
	userID, err := userParam(c)
	if err != nil {
		return err
	}
	list, err := m.List(s.ctx, userID)
	if err != nil {
		return err
	}
	out := make([]sessionBody, len(list))
	for i, session := range list {
		out[i] = showSession("", session)
	}
	return answerJSON(c, fiber.StatusOK, struct {
		UserID   string        `json:"userId"`
		Sessions []sessionBody `json:"sessions"`
	}{userID, out})
}

// presence is GET /users/<id>/presence.
func (s *Server) presence(c *fiber.Ctx) error {
	userID, err := userParam(c)
	if err != nil {
		return err
	}
	p, err := s.Presence.Get(s.ctx, userID)
	if err != nil {
		return err
	}
	return answerJSON(c, fiber.StatusOK, struct {
		Online      bool `json:"online"`
		Connections int  `json:"connections"`
		Nodes       int  `json:"nodes"`
	}{p.Connections > 0, p.Connections, p.Nodes})
}

func handleParam(c *fiber.Ctx) (string, error) {
	handle, err := param(c, "handle")
	if err == nil && !sessions.ValidHandle(handle) {
		err = &notify.FieldError{Field: "the session handle in the path", Problem: "must be 64 lower-case hex digits"}
	}
	return handle, err
}
