package server

import (
	"encoding/json"
	"time"

	"github.com/gofiber/fiber/v2"

	"herald/notify"
	"herald/sessions"
)

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
func (s *Server) createSession(c *fiber.Ctx) error {
	r, err := newSession(c)
	if err != nil {
		return err
	}
	id, session, err := s.Sessions.Create(s.ctx, r.UserID, r.Data)
	if err != nil {
		return err
	}
	return answerJSON(c, fiber.StatusCreated, showSession(id, session))
}

// newSession reads a body that must name a user.
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
func (s *Server) updateSession(c *fiber.Ctx) error {
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
	session, err := s.Sessions.Update(s.ctx, handle, r.Data)
	if err != nil {
		return err
	}
	return answerJSON(c, fiber.StatusOK, showSession("", session))
}

// revokeSession is DELETE /sessions/<handle>.
func (s *Server) revokeSession(c *fiber.Ctx) error {
	handle, err := handleParam(c)
	if err != nil {
		return err
	}
	if err := s.Sessions.Revoke(s.ctx, handle); err != nil {
		return err
	}
	return answerJSON(c, fiber.StatusOK, revokedBody{Revoked: 1})
}

type revokedBody struct {
	Revoked int `json:"revoked"`
}

// revokeUser is DELETE /users/<id>/sessions.
func (s *Server) revokeUser(c *fiber.Ctx) error {
	userID, err := userParam(c)
	if err != nil {
		return err
	}
	return s.revokeAll(c, userID)
}

func (s *Server) revokeAll(c *fiber.Ctx, userID string) error {
	n, err := s.Sessions.RevokeAll(s.ctx, userID)
	if err != nil {
		return err
	}
	return answerJSON(c, fiber.StatusOK, revokedBody{Revoked: n})
}

// listSessions is GET /users/<id>/sessions.
func (s *Server) listSessions(c *fiber.Ctx) error {
	userID, err := userParam(c)
	if err != nil {
		return err
	}
	list, err := s.Sessions.List(s.ctx, userID)
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
