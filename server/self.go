package server

import (
	"strconv"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"

	"herald/auth"
	"herald/broker"
	"herald/notify"
)

// This file is the user's own API. A browser calls it with the same credentials as its
// stream.

// inboxBytes bounds one read of the log for GET /inbox.
const inboxBytes = 1 << 20

// inbox is GET /inbox: a page of the notifications stored after an id, newest last.
func (s *Server) inbox(c *fiber.Ctx) error {
	v, err := s.visit(c, auth.OriginOptional, plainHTTP)
	if err != nil {
		return err
	}
	after, limit, err := inboxQuery(c)
	if err != nil {
		return err
	}
	state, err := s.Broker.State(s.ctx, v.UserID)
	if err != nil {
		return err
	}
	items, next, err := s.inboxPage(v.UserID, after, limit)
	if err != nil {
		return err
	}
	return sendJSON(c, appendInbox(nil, items, state, next))
}

// appendInbox copies the frames into the answer byte for byte; encoding/json would
// re-encode them.
func appendInbox(b []byte, items []string, state broker.State, next notify.ID) []byte {
	b = append(b, `{"items":[`...)
	for i, frame := range items {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, frame...)
	}
	b = append(b, `],"last":`...)
	b = strconv.AppendInt(b, int64(state.Last), 10)
	b = append(b, `,"read":`...)
	b = strconv.AppendInt(b, int64(state.Read), 10)
	b = append(b, `,"unread":`...)
	b = strconv.AppendInt(b, int64(state.Unread), 10)
	b = append(b, `,"next":`...)
	if next == 0 {
		return append(b, "null}"...)
	}
	return append(strconv.AppendInt(b, int64(next), 10), '}')
}

func inboxQuery(c *fiber.Ctx) (after notify.ID, limit int, err error) {
	if v := queryValues(c, "after"); len(v) > 0 {
		if after, err = notify.ParseID(v[0]); err != nil {
			return 0, 0, &notify.FieldError{Field: "after", Problem: err.Error()}
		}
	}
	limit, err = pageLimit(c)
	return after, limit, err
}

// inboxPage skips expired entries, until the page is full or the log ends. next is the
// value of after for the following page; 0 after the last page.
func (s *Server) inboxPage(userID string, after notify.ID, limit int) (items []string, next notify.ID, err error) {
	for {
		page, err := s.Broker.After(s.ctx, userID, after, limit-len(items), inboxBytes)
		if err != nil {
			return nil, 0, err
		}
		for i, m := range page.Entries {
			after = m.ID
			if m.JSON != "" {
				items = append(items, m.JSON)
			}
			if len(items) == limit {
				if i < len(page.Entries)-1 || page.Full {
					next = after
				}
				return items, next, nil
			}
		}
		if !page.Full {
			return items, 0, nil
		}
	}
}

// markRead is POST /inbox/read.
func (s *Server) markRead(c *fiber.Ctx) error {
	v, err := s.visit(c, auth.OriginRequired, plainHTTP)
	if err != nil {
		return err
	}
	body, err := jsonBody(c)
	if err != nil {
		return err
	}
	upTo, err := notify.ParseReadRequest(body)
	if err != nil {
		return err
	}
	state, err := s.Broker.MarkRead(s.ctx, v.UserID, upTo)
	if err != nil {
		return err
	}
	return answerJSON(c, fiber.StatusOK, struct {
		Read   notify.ID `json:"read"`
		Unread int       `json:"unread"`
	}{state.Read, state.Unread})
}

// currentSession is GET /sessions/current.
func (s *Server) currentSession(c *fiber.Ctx) error {
	v, err := s.visit(c, auth.OriginOptional, plainHTTP)
	if err != nil {
		return err
	}
	if v.SessionHandle == "" {
		return errNoSession
	}
	m, ok := s.Sessions.(SessionManager)
	if !ok {
		return answerJSON(c, fiber.StatusOK, showForeign(v))
	}
	session, err := m.Peek(s.ctx, v.SessionHandle)
	if err != nil {
		return err
	}
	return answerJSON(c, fiber.StatusOK, showSession("", session))
}

// foreignSession is what GET /sessions/current shows of another program's session.
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

var errNoSession = &problem{status: 404, code: "not_found", detail: "these credentials are a token, not a session"}

// logOut is DELETE /sessions/current: it revokes the session and deletes the cookie.
func (s *Server) logOut(c *fiber.Ctx) error {
	v, err := s.visit(c, auth.OriginRequired, plainHTTP)
	if err != nil {
		return err
	}
	if v.SessionHandle == "" {
		return errNoSession
	}
	return s.manage(func(c *fiber.Ctx, m SessionManager) error {
		if err := m.Revoke(s.ctx, v.SessionHandle); err != nil {
			return err
		}
		s.setCookie(c, "", strings.TrimSuffix(strings.Clone(c.Path()), "sessions/current"), time.Unix(1, 0))
		return answerJSON(c, fiber.StatusOK, revokedBody{Revoked: 1})
	})(c)
}

// setCookie sets the session cookie. An expiry in the past deletes it.
func (s *Server) setCookie(c *fiber.Ctx, id, path string, expires time.Time) {
	c.Cookie(&fiber.Cookie{
		Name: s.o.Cookie, Value: id, Path: path, Expires: expires, HTTPOnly: true, SameSite: fiber.CookieSameSiteLaxMode,
		Secure: len(s.self(c)) > 5 && s.self(c)[:5] == "https",
	})
}
