package server

import (
	"net"
	"time"

	"github.com/gofiber/fiber/v2"

	"herald/auth"
	"herald/internal/transport"
	"herald/limiter"
	"herald/notify"
	"herald/stream"
)

// ws is GET /ws.
func (s *Server) ws(c *fiber.Ctx) error {
	rule := auth.OriginRequired
	if len(c.Request().Header.Peek("Upgrade")) == 0 {
		rule = auth.OriginOrSameOrigin // a page asks by fetch why its upgrade failed
	}
	a, err := s.admit(c, rule, overWebSocket)
	if err != nil {
		return err
	}
	head, err := handshake(c)
	if err != nil {
		return err
	}
	s.takeOver(c, 0, func(conn transport.Conn, early []byte) error {
		return s.Streams.OpenWebSocket(conn, head, early, a)
	})
	return nil
}

// events is GET /events: the same stream as server-sent events (WHATWG HTML, 9.2).
func (s *Server) events(c *fiber.Ctx) error {
	a, err := s.admit(c, auth.OriginOrSameOrigin, overSSE)
	if err != nil {
		return err
	}
	head := eventsHead(values(c, "Origin"))
	s.takeOver(c, stream.EventsTimeout, func(conn transport.Conn, early []byte) error {
		return s.Streams.OpenEvents(conn, head, early, a)
	})
	return nil
}

// eventsHead is the head of the answer. The body ends with the connection, so it
// needs no chunks. X-Accel-Buffering keeps nginx from buffering it.
func eventsHead(origin []string) []byte {
	head := "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n" +
		"X-Accel-Buffering: no\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n"
	if len(origin) == 1 { // admit has allowed it
		head += "Access-Control-Allow-Origin: " + origin[0] + "\r\nAccess-Control-Allow-Credentials: true\r\nVary: Origin\r\n"
	}
	return []byte(head + "\r\n")
}

// admit makes every check that a stream's request must pass before its connection is
// taken over: the cheapest first, unless the protocol says otherwise.
func (s *Server) admit(c *fiber.Ctx, rule auth.OriginRule, over transportKind) (a stream.Admission, err error) {
	if s.Hub.Draining() {
		return a, errDraining
	}
	if err := s.limit(c, s.Connect, limiter.Subject(s.clientIP(c)), 1); err != nil {
		return a, err
	}
	v, err := s.visit(c, rule, over)
	if err != nil {
		return a, err
	}
	a = stream.Admission{UserID: v.UserID, Session: v.SessionHandle, Expires: v.Expires, CheckedAt: v.since}
	if a.Resume, a.Resuming, err = since(c); err != nil {
		return a, err
	}
	if s.Hub.Full() {
		return a, errOverloaded
	}
	if !s.Broker.Hears() {
		return a, errNotSubscribed
	}
	return a, nil
}

// since returns the id that the client wants to resume from. Last-Event-ID takes
// precedence over ?lastEventId= and ?since=, because an EventSource repeats its first
// URL when it reconnects.
func since(c *fiber.Ctx) (id notify.ID, ok bool, err error) {
	places := []struct {
		name   string
		values []string
	}{
		{"Last-Event-ID", values(c, "Last-Event-ID")},
		{"lastEventId", queryValues(c, "lastEventId")},
		{"since", queryValues(c, "since")},
	}
	for _, p := range places {
		if len(p.values) == 0 {
			continue
		}
		if id, err = notify.ParseID(p.values[0]); err != nil || len(p.values) > 1 {
			return 0, false, &notify.FieldError{Field: p.name, Problem: notify.ErrID.Error()}
		}
		return id, true, nil
	}
	return 0, false, nil
}

// takeOver takes the connection away from fasthttp and serves it with open. unacked is
// transport.Engine.Adopt's.
func (s *Server) takeOver(c *fiber.Ctx, unacked time.Duration, open func(conn transport.Conn, early []byte) error) {
	s.hijack(c, func(raw net.Conn, early []byte) {
		conn, err := s.engine.Adopt(raw, unacked)
		if err == nil {
			err = open(conn, early)
		}
		if err != nil {
			s.o.Log.Debug("a connection cannot be taken over", "error", err)
		}
	})
}
