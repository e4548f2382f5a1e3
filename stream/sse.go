package stream

import (
	"bytes"
	"strconv"
	"strings"
	"time"

	"herald/hub"
	"herald/notify"
)

// eventsStream is a stream of server-sent events (WHATWG HTML, 9.2). The client has
// nothing to say: what it sends is ignored, within its budget of inbound bytes.
// Reading only shows when the client is gone.
type eventsStream struct {
	stream
	inbound inbound // owned by the caller of Receive
}

// Receive implements transport.Receiver.
func (e *eventsStream) Receive(p []byte) bool {
	if !e.inbound.spend(len(p), time.Now()) {
		e.sock.Close(notify.CloseMisuse, 0) // only the first call counts
	}
	return true
}

func (*eventsStream) ready() {}

// EventsTimeout is how long a client of server-sent events may acknowledge nothing.
// It never sends anything, so only TCP can tell that it is gone.
const EventsTimeout = 25 * time.Second

// eventStreamFraming frames what the hub sends as server-sent events.
type eventStreamFraming struct{}

var (
	eventStream hub.Framing = &eventStreamFraming{}
	heartbeat               = []byte(": ping\n\n")
)

// Encode implements hub.Framing. A line break in the frame, which JSON has only
// between its tokens, starts another data line; the client joins the lines with a
// newline.
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

// Goodbye implements hub.Framing. An EventSource reconnects after retry.
func (w *eventStreamFraming) Goodbye(code notify.CloseCode, retryAfterMs int) []byte {
	b := w.Encode(notify.Frame{Event: "bye", JSON: string(notify.ByeFrame(code, retryAfterMs))})
	if retryAfterMs > 0 {
		b = append(bytes.TrimSuffix(b, []byte("\n")), "retry: "...)
		b = strconv.AppendInt(b, int64(retryAfterMs), 10)
		b = append(b, "\n\n"...)
	}
	return b
}
