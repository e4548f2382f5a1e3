package server

import (
	"encoding/binary"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"
	"github.com/gofiber/fiber/v2"

	"herald/auth"
	"herald/hub"
	"herald/notify"
)

// ws is GET /ws.
func (s *Server) ws(c *fiber.Ctx) error {
	if c.Method() != fiber.MethodGet {
		return errMethod
	}
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
	ws := &webSocketStream{}
	s.takeOver(c, head, a, webSocket, ws)
	return nil
}

// webSocketStream is a stream over WebSocket. What we send never goes through
// the library: it is framed once for all of a user's sockets and written without
// waiting. What the client sends is cut into whole messages here and parsed by
// the library.
type webSocketStream struct {
	stream

	mu    sync.Mutex
	in    cutter // guarded by mu
	quota quota  // guarded by mu
	deaf  bool   // guarded by mu: nothing of what still comes matters
}

// messageTimeout is how long a message may take from its first byte to its last.
const messageTimeout = 10 * time.Second

// maxEarly is how much a client may send before hello, in bytes: hello waits
// for Redis, and what the client asks for waits with it.
const maxEarly = 16 << 10

// Receive implements transport.Receiver.
func (ws *webSocketStream) Receive(p []byte) bool {
	ws.sock.Heard()
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.deaf {
		return true
	}
	if !ws.quota.spend(len(p), time.Now()) {
		ws.close(notify.CloseMisuse)
		return true
	}
	if len(ws.in.rest) > 0 {
		p = append(ws.in.rest, p...)
	}
	return ws.takeLocked(p)
}

// ready is called when hello has been said after the reading began.
func (ws *webSocketStream) ready() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if !ws.deaf && !ws.takeLocked(ws.in.rest) {
		ws.deaf = true
		ws.sock.End()
	}
}

// takeLocked handles every message in p, and keeps what is left of it.
func (ws *webSocketStream) takeLocked(p []byte) bool {
	if !ws.greeted.Load() {
		ws.in.keep(p)
		if len(p) > maxEarly {
			ws.close(notify.CloseMisuse)
		}
		return true
	}
	for !ws.deaf {
		kind, raw, left := ws.in.cut(p)
		switch p = left; kind {
		case pieceNone:
			ws.keep(left)
			return true
		case pieceMessage:
			if !ws.message(raw) {
				return false
			}
		case piecePing:
			ws.sock.SendRaw(pong(raw))
		case piecePong:
		case pieceTooBig:
			ws.close(notify.CloseTooBig)
		case pieceClose:
			refuse(raw, ws.answer)
			return false
		case pieceOdd:
			refuse(raw, ws.answer)
			ws.close(notify.CloseProtocol) // unless the library has found the words
		}
	}
	return true
}

// keep remembers the beginning of a message, which must be complete in time.
func (ws *webSocketStream) keep(left []byte) {
	began := len(ws.in.rest) == 0
	switch ws.in.keep(left); {
	case len(left) == 0:
		ws.sock.SetDeadline(time.Time{})
	case began:
		ws.sock.SetDeadline(time.Now().Add(messageTimeout))
	}
}

// close says goodbye. What the client has still to say, until it has heard that,
// is read and forgotten: a connection that is closed with something unread is
// reset, and the goodbye lost.
func (ws *webSocketStream) close(code notify.CloseCode) {
	ws.sock.Close(code, 0)
	ws.deaf, ws.in = true, cutter{}
	ws.sock.SetDeadline(time.Time{})
}

// message handles one message; false ends the connection.
func (ws *webSocketStream) message(raw []byte) bool {
	typ, data, err := ws.s.parsers.parse(raw, ws.answer)
	switch {
	case err != nil:
		ws.close(notify.CloseProtocol)
	case typ != websocket.MessageText:
		ws.sock.Close(notify.CloseUnsupported, 0)
	case !utf8.Valid(data):
		ws.sock.Close(notify.CloseNotUTF8, 0)
	default:
		ws.frame(data)
	}
	return true
}

// answer takes a frame that the library made: the answer to the client's close,
// or the close of a client that broke the protocol.
func (ws *webSocketStream) answer(frame []byte) {
	if frame[0]&opBits != opClose {
		return
	}
	switch code := closeCode(frame); code {
	case notify.CloseProtocol, notify.CloseTooBig:
		ws.sock.Close(code, 0)
	default:
		ws.sock.CloseRaw(notify.CloseNormal, frame)
	}
}

// closeCode reads the status code of a close frame of at most 125 bytes.
func closeCode(frame []byte) notify.CloseCode {
	if len(frame) < 4 {
		return notify.CloseNormal
	}
	return notify.CloseCode(binary.BigEndian.Uint16(frame[2:4]))
}

// A client may send this much: more closes with 4003. Messages of a client are
// a few dozen bytes; pings and empty fragments cost it six bytes each.
const (
	inboundRate  = 16 << 10 // bytes a second
	inboundBurst = 64 << 10 // bytes at once
)

// quota is a token bucket; the zero value is full.
type quota struct {
	spent int64 // bytes, at most inboundBurst
	at    int64 // Unix ns when spent was true
}

func (q *quota) spend(n int, now time.Time) bool {
	ns := now.UnixNano()
	regained := min(max(ns-q.at, 0), int64(time.Hour)) * inboundRate / int64(time.Second)
	q.spent, q.at = max(q.spent-regained, 0)+int64(n), ns
	return q.spent <= inboundBurst
}

// webSocketFraming frames what the hub sends as unmasked text messages (RFC 6455).
type webSocketFraming struct{}

var (
	webSocket hub.Framing = &webSocketFraming{}
	pingFrame             = []byte{finBit | opPing, 0}
)

func (*webSocketFraming) Encode(m notify.Frame) []byte { return textFrame(m.JSON) }
func (*webSocketFraming) Ping() []byte                 { return pingFrame }
func (*webSocketFraming) AnswersClose() bool           { return true }
func (*webSocketFraming) AnswersPing() bool            { return true }

func (*webSocketFraming) Goodbye(code notify.CloseCode, retryAfterMs int) []byte {
	b := textFrame(string(notify.ByeFrame(code, retryAfterMs)))
	reason := code.Reason()
	b = append(b, finBit|opClose, byte(2+len(reason)))
	b = binary.BigEndian.AppendUint16(b, uint16(code))
	return append(b, reason...)
}

// textFrame is one unmasked text message with room for a close frame behind it.
func textFrame(text string) []byte {
	n := len(text)
	b := make([]byte, 0, 10+n)
	switch {
	case n < 126:
		b = append(b, finBit|opText, byte(n))
	case n <= 0xffff:
		b = append(b, finBit|opText, 126)
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	default:
		b = append(b, finBit|opText, 127)
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	return append(b, text...)
}
