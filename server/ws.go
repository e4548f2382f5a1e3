package server

import (
	"context"
	"encoding/binary"
	"io"
	"net"
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
	st, err := s.admit(c, rule, overWebSocket)
	if err != nil {
		return err
	}
	return s.upgrade(c, st)
}

// serveWebSocket runs a stream on an upgraded connection. What we send never
// goes through the library: it is framed once for all of a user's sockets and
// written without waiting. The library reads; the few frames it writes by
// itself (pong, close) come back through the fence into the socket's queue.
func (st *stream) serveWebSocket(accept func(net.Conn) (*websocket.Conn, error), conn net.Conn) {
	out := newTransport(conn, 0) // the hub's pings tell whether the peer lives
	f := &fence{Conn: conn, allowance: inboundBurst, filled: time.Now()}
	st.open(webSocket, out)
	defer st.end()
	f.sock = st.sock
	lib, err := accept(f)
	if err != nil {
		return
	}
	defer func() { _ = lib.CloseNow() }()
	lib.SetReadLimit(notify.MaxClientFrame)
	st.join()
	for st.readMessage(lib, conn) {
	}
}

// messageTimeout is how long a message may take from its first frame's header
// to its last byte.
const messageTimeout = 10 * time.Second

// readMessage waits for one message and handles it; false ends the connection.
func (st *stream) readMessage(lib *websocket.Conn, conn net.Conn) bool {
	typ, r, err := lib.Reader(context.Background())
	if err != nil {
		return false
	}
	_ = conn.SetReadDeadline(time.Now().Add(messageTimeout))
	data, err := io.ReadAll(r)
	_ = conn.SetReadDeadline(time.Time{})
	switch {
	case err != nil:
		return false
	case typ != websocket.MessageText:
		st.sock.Close(notify.CloseUnsupported, 0)
	case !utf8.Valid(data):
		st.sock.Close(notify.CloseNotUTF8, 0)
	default:
		st.frame(data)
	}
	return true
}

// The opcodes and bits of RFC 6455, 5.2 that we send.
const (
	finText  = 0x81
	finClose = 0x88
	finPing  = 0x89
	opMask   = 0x0f
	opClose  = 0x8
)

// webSocketWire frames what the hub sends as unmasked text messages (RFC 6455).
type webSocketWire struct{}

var (
	webSocket hub.Wire = &webSocketWire{}
	pingFrame          = []byte{finPing, 0}
)

func (*webSocketWire) Encode(m notify.Message) []byte { return textFrame(m.Frame) }
func (*webSocketWire) Ping() []byte                   { return pingFrame }
func (*webSocketWire) Answers() bool                  { return true }
func (*webSocketWire) Chatty() bool                   { return true }

func (*webSocketWire) Goodbye(code notify.CloseCode, retryAfterMs int) []byte {
	b := textFrame(string(notify.ByeFrame(code, retryAfterMs)))
	reason := code.Reason()
	b = append(b, finClose, byte(2+len(reason)))
	b = binary.BigEndian.AppendUint16(b, uint16(code))
	return append(b, reason...)
}

// textFrame is one unmasked text message with room for a close frame behind it.
func textFrame(text string) []byte {
	n := len(text)
	b := make([]byte, 0, 10+n)
	switch {
	case n < 126:
		b = append(b, finText, byte(n))
	case n <= 0xffff:
		b = append(b, finText, 126)
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	default:
		b = append(b, finText, 127)
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	return append(b, text...)
}

// A client may send this much: more closes with 4003. Messages of a client are
// a few dozen bytes; pings and empty fragments cost it six bytes each.
const (
	inboundRate  = 16 << 10 // bytes a second
	inboundBurst = 64 << 10 // bytes at once
)

// fence is what the library sees of the connection: reads are counted and
// limited, writes go to the socket's queue.
type fence struct {
	net.Conn
	sock *hub.Socket // set before the library sees the fence

	// Owned by the reader.
	allowance float64
	filled    time.Time
}

func (f *fence) Read(p []byte) (int, error) {
	n, err := f.Conn.Read(p)
	if n > 0 {
		f.sock.Heard()
		if !f.spend(n) {
			f.sock.Close(notify.CloseMisuse, 0)
			return 0, net.ErrClosed
		}
	}
	return n, err
}

// spend takes n bytes from a token bucket.
func (f *fence) spend(n int) bool {
	now := time.Now()
	f.allowance = min(inboundBurst, f.allowance+now.Sub(f.filled).Seconds()*inboundRate)
	f.filled = now
	f.allowance -= float64(n)
	return f.allowance >= 0
}

// Write takes one frame that the library made: a pong, the answer to the
// client's close, or the close of a client that broke the protocol.
func (f *fence) Write(p []byte) (int, error) {
	frame := append([]byte(nil), p...) // the library reuses p
	if frame[0]&opMask != opClose {
		f.sock.SendRaw(frame)
		return len(p), nil
	}
	switch code := closeCode(frame); code {
	case notify.CloseProtocol, notify.CloseTooBig:
		f.sock.Close(code, 0)
	default:
		f.sock.CloseRaw(notify.CloseNormal, frame)
	}
	return len(p), nil
}

func (f *fence) Close() error                     { return nil } // the transport's business
func (f *fence) SetWriteDeadline(time.Time) error { return nil }

// closeCode reads the status code of a close frame of at most 125 bytes.
func closeCode(frame []byte) notify.CloseCode {
	if len(frame) < 4 {
		return notify.CloseNormal
	}
	return notify.CloseCode(binary.BigEndian.Uint16(frame[2:4]))
}
