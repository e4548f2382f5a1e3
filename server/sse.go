package server

import (
	"bytes"
	"strconv"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"

	"herald/auth"
	"herald/hub"
	"herald/notify"
)

// events is GET /events: the same stream as server-sent events (WHATWG HTML, 9.2).
func (s *Server) events(c *fiber.Ctx) error {
	if c.Method() != fiber.MethodGet {
		return errMethod
	}
	a, err := s.admit(c, auth.OriginOrSameOrigin, overSSE)
	if err != nil {
		return err
	}
	s.takeOver(c, eventsHead(values(c, "Origin")), a, eventStream, &eventsStream{})
	return nil
}

// eventsHead is the answer's head. The body ends with the connection, which
// needs no chunks; a proxy must not collect it.
func eventsHead(origin []string) []byte {
	head := "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n" +
		"X-Accel-Buffering: no\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n"
	if len(origin) == 1 { // it was found to be allowed
		head += "Access-Control-Allow-Origin: " + origin[0] + "\r\nAccess-Control-Allow-Credentials: true\r\nVary: Origin\r\n"
	}
	return []byte(head + "\r\n")
}

// eventsStream is a stream of server-sent events. Nothing is expected from the
// client: reading only tells when it is gone.
type eventsStream struct{ stream }

func (*eventsStream) Receive([]byte) bool { return true }
func (*eventsStream) ready()              {}

// readerTimeout is how long a reader may acknowledge nothing, or take nothing
// while something waits for it. It is never heard from, so only TCP can tell.
const readerTimeout = 25 * time.Second

// eventStreamFraming frames what the hub sends as server-sent events.
type eventStreamFraming struct{}

var (
	eventStream hub.Framing = &eventStreamFraming{}
	heartbeat               = []byte(": ping\n\n")
)

// Encode implements hub.Framing. A line break in the frame, which JSON has only
// between its tokens, starts another data line; the client puts them together
// with a newline.
func (*eventStreamFraming) Encode(m notify.Frame) []byte {
	b := make([]byte, 0, len(m.JSON)+64)
	b = append(b, "event: "...)
	b = append(b, m.Event...)
	if m.ID != 0 {
		b = append(b, "\nid: "...)
		b = strconv.AppendInt(b, int64(m.ID), 10)
	}
	b = append(b, "\ndata: "...)
	if strings.ContainsAny(m.JSON, "\r\n") {
		frame := strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(m.JSON)
		b = append(b, strings.ReplaceAll(frame, "\n", "\ndata: ")...)
	} else {
		b = append(b, m.JSON...)
	}
	return append(b, "\n\n"...)
}

func (*eventStreamFraming) Ping() []byte       { return heartbeat }
func (*eventStreamFraming) AnswersClose() bool { return false }
func (*eventStreamFraming) AnswersPing() bool  { return false }

// Goodbye implements hub.Framing: an EventSource comes back by itself after retry.
func (w *eventStreamFraming) Goodbye(code notify.CloseCode, retryAfterMs int) []byte {
	b := w.Encode(notify.Frame{Event: "bye", JSON: string(notify.ByeFrame(code, retryAfterMs))})
	if retryAfterMs > 0 {
		b = append(bytes.TrimSuffix(b, []byte("\n")), "retry: "...)
		b = strconv.AppendInt(b, int64(retryAfterMs), 10)
		b = append(b, "\n\n"...)
	}
	return b
}
