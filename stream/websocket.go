package stream

import (
	"encoding/binary"
	"sync"
	"time"
	"unicode/utf8"

	"herald/hub"
	"herald/notify"
)

// webSocketStream is a stream over WebSocket. Frames to the client bypass the
// WebSocket library: they are encoded once for all of a user's sockets and written
// without waiting. What the client sends is split into whole messages here and parsed
// by the library.
type webSocketStream struct {
	stream

	mu         sync.Mutex
	in         splitter // guarded by mu
	inbound    inbound  // guarded by mu
	discarding bool     // guarded by mu: what the client still sends is ignored
}

// messageTimeout is how long a message may take from its first byte to its last.
const messageTimeout = 10 * time.Second

// maxEarly is how much a client may send before hello, in bytes. While hello waits
// for Redis, the client's frames wait with it.
const maxEarly = 16 << 10

// Receive implements transport.Receiver.
func (ws *webSocketStream) Receive(p []byte) bool {
	ws.sock.Heard()
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.discarding {
		return true
	}
	if !ws.inbound.spend(len(p), time.Now()) {
		ws.closeLocked(notify.CloseMisuse)
		return true
	}
	if len(ws.in.rest) > 0 {
		p = append(ws.in.rest, p...)
	}
	return ws.handleLocked(p)
}

// ready handles what has arrived before hello.
func (ws *webSocketStream) ready() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if !ws.discarding && !ws.handleLocked(ws.in.rest) {
		ws.discarding = true
		ws.sock.End()
	}
}

// handleLocked handles every message in p and keeps an incomplete one for later. It
// returns false to close the connection.
func (ws *webSocketStream) handleLocked(p []byte) bool {
	if !ws.helloSent.Load() {
		ws.in.keep(p)
		if len(p) > maxEarly {
			ws.closeLocked(notify.CloseMisuse)
		}
		return true
	}
	for !ws.discarding {
		kind, raw, left := ws.in.next(p)
		switch p = left; kind {
		case pieceIncomplete:
			ws.keepLocked(left)
			return true
		case pieceMessage:
			ws.messageLocked(raw)
		case piecePing:
			ws.sock.SendRaw(pong(raw))
		case piecePong:
		case pieceTooBig:
			ws.closeLocked(notify.CloseTooBig)
		case pieceClose:
			ws.answerClose(raw)
			return false
		case pieceInvalid:
			ws.closeLocked(notify.CloseProtocol)
		}
	}
	return true
}

// keepLocked keeps the beginning of a message, which must be complete within
// messageTimeout.
func (ws *webSocketStream) keepLocked(left []byte) {
	began := len(ws.in.rest) == 0
	switch ws.in.keep(left); {
	case len(left) == 0:
		ws.sock.SetDeadline(time.Time{})
	case began:
		ws.sock.SetDeadline(time.Now().Add(messageTimeout))
	}
}

// closeLocked sends the goodbye. What the client sends until it has received the
// goodbye is read and discarded: closing a connection with unread bytes resets it,
// and the goodbye would be lost.
func (ws *webSocketStream) closeLocked(code notify.CloseCode) {
	ws.sock.Close(code, 0)
	ws.discarding, ws.in = true, splitter{}
	ws.sock.SetDeadline(time.Time{})
}

func (ws *webSocketStream) messageLocked(raw []byte) {
	text, data, err := ws.s.parsers.parse(raw)
	switch {
	case err != nil:
		ws.closeLocked(notify.CloseProtocol)
	case !text:
		ws.sock.Close(notify.CloseUnsupported, 0)
	case !utf8.Valid(data):
		ws.sock.Close(notify.CloseNotUTF8, 0)
	default:
		ws.frame(data)
	}
}

// answerClose answers the client's close frame.
func (ws *webSocketStream) answerClose(raw []byte) {
	answer, code := closeAnswer(raw)
	if code != notify.CloseNormal {
		ws.sock.Close(code, 0)
		return
	}
	ws.sock.CloseRaw(code, answer)
}

// closeAnswer returns the answer to a masked close frame: the same code and reason
// (RFC 6455, 5.5.1), with CloseNormal. For an invalid payload it returns only the code
// to close with.
func closeAnswer(raw []byte) (answer []byte, _ notify.CloseCode) {
	answer = append(make([]byte, 0, len(raw)), finBit|opClose, 0)
	answer = appendPayload(answer, raw)
	payload := answer[2:]
	answer[1] = byte(len(payload))
	switch {
	case len(payload) == 0:
	case len(payload) == 1 || !validCloseCode(binary.BigEndian.Uint16(payload)):
		return nil, notify.CloseProtocol
	case !utf8.Valid(payload[2:]):
		return nil, notify.CloseNotUTF8
	}
	return answer, notify.CloseNormal
}

// validCloseCode reports whether a close frame may carry the code (RFC 6455, 7.4, and
// IANA's registry).
func validCloseCode(code uint16) bool {
	switch code {
	case 1004, 1005, 1006:
		return false
	}
	return code >= 1000 && code <= 1014 || code >= 3000 && code <= 4999
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

// textFrame returns one unmasked text message.
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
