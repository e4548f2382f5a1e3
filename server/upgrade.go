package server

import (
	"bufio"
	"cmp"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/gofiber/fiber/v2"

	"herald/auth"
)

// This file is the bridge from fasthttp to the WebSocket library, and the only
// place that takes a connection away from fasthttp. What makes it delicate:
//
//   - Accept wants net/http's types. fasthttpadaptor's conversion aliases memory
//     that the next request reuses and collapses repeated headers, and its
//     Hijacker loses the 101. So the few headers that Accept reads are copied.
//   - Accept gets a connection that says no. By then it has validated everything
//     and made the answer's head, which is all that is wanted of it: a library
//     connection for each client would cost kilobytes (see parser.go).
//   - The connection's descriptor is taken out of what fasthttp has, which fasthttp
//     closes as soon as the hijack handler returns, which is at once: that frees the
//     request and its buffers. Nothing of *fiber.Ctx may be touched in it.
//   - Bytes that came in one segment with the request sit in fasthttp's reader.

var acceptOptions = websocket.AcceptOptions{
	Subprotocols:       []string{auth.Subprotocol},
	InsecureSkipVerify: true, // the Origin has been checked, more exactly than the library would
	CompressionMode:    websocket.CompressionDisabled,
}

// handshake has the library validate the request, and returns the head of the
// answer that takes it.
func handshake(c *fiber.Ctx) (head []byte, _ error) {
	u := upgrades.Get().(*upgrade)
	defer u.release()
	_, err := websocket.Accept(&u.answer, u.ask(c), &acceptOptions)
	if errors.Is(err, errTakenOver) {
		return switchingProtocols(&u.answer), nil
	}
	u.answer.header.Del("Content-Type")
	u.answer.header.Del("X-Content-Type-Options")
	for name, v := range u.answer.header {
		c.Set(name, v[0])
	}
	return nil, u.answer.problem()
}

// upgrade is a request as the library's Accept takes it, and its answer. Accept
// keeps nothing of it, so that its memory is used again.
type upgrade struct {
	request http.Request
	values  [len(handshakeHeaders)][1]string
	answer  upgradeWriter
}

var upgrades = sync.Pool{New: func() any {
	return &upgrade{request: http.Request{Header: http.Header{}}, answer: upgradeWriter{header: http.Header{}, hijack: noConnection}}
}}

func noConnection() (net.Conn, *bufio.ReadWriter, error) { return nil, nil, errTakenOver }

func (u *upgrade) release() {
	clear(u.request.Header)
	clear(u.answer.header)
	clear(u.values[:])
	u.answer.status = 0
	upgrades.Put(u)
}

// handshakeHeaders are all that Accept reads.
var handshakeHeaders = [...]string{
	"Connection", "Upgrade", "Sec-Websocket-Version", "Sec-Websocket-Key", "Sec-Websocket-Protocol", "Sec-Websocket-Extensions",
}

// ask copies what Accept reads of a request, every value of each header.
func (u *upgrade) ask(c *fiber.Ctx) *http.Request {
	r := &u.request
	for i, name := range handshakeHeaders {
		if v := appendValues(u.values[i][:0], c, name); len(v) > 0 {
			r.Header[name] = v
		}
	}
	r.Method, r.Proto, r.ProtoMajor, r.ProtoMinor = c.Method(), "HTTP/1.1", 1, 1
	if !c.Request().Header.IsHTTP11() {
		r.Proto, r.ProtoMinor = "HTTP/1.0", 0
	}
	return r
}

var errTakenOver = errors.New("the handshake is valid")

// hijack takes the connection away from fasthttp and has serve take it over; then
// fasthttp closes what it has. early is what the client sent right behind
// the request.
func (s *Server) hijack(c *fiber.Ctx, serve func(raw net.Conn, early []byte)) {
	c.Context().HijackSetNoResponse(true)
	c.Context().Hijack(func(hc net.Conn) {
		defer func() {
			if v := recover(); v != nil {
				s.panicked("hijack", v)
			}
		}()
		if raw, early, err := release(hc); err == nil {
			serve(raw, early)
		}
	})
}

// upgradeWriter is the http.ResponseWriter that the library's Accept answers on.
type upgradeWriter struct {
	header http.Header
	status int
	hijack func() (net.Conn, *bufio.ReadWriter, error)
}

func (w *upgradeWriter) Header() http.Header                          { return w.header }
func (w *upgradeWriter) Write(p []byte) (int, error)                  { return len(p), nil }
func (w *upgradeWriter) WriteHeader(status int)                       { w.status = cmp.Or(w.status, status) }
func (w *upgradeWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) { return w.hijack() }

// problem is the library's refusal in our words.
func (w *upgradeWriter) problem() *problem {
	if w.status == http.StatusUpgradeRequired {
		return &problem{status: w.status, code: "upgrade_required", detail: "this path speaks WebSocket: ask for it with Upgrade: websocket"}
	}
	return &problem{status: w.status, code: "bad_handshake", detail: "the WebSocket handshake is not valid (RFC 6455, 4.2.1)"}
}

// switchingProtocols is the head of the library's 101.
func switchingProtocols(w *upgradeWriter) []byte {
	head := append(make([]byte, 0, 192), "HTTP/1.1 101 Switching Protocols\r\n"...)
	for _, name := range []string{"Upgrade", "Connection", "Sec-Websocket-Accept", "Sec-Websocket-Protocol"} {
		if v := w.header.Get(name); v != "" {
			head = append(append(append(append(head, name...), ": "...), v...), "\r\n"...)
		}
	}
	return append(head, "\r\n"...)
}

// release takes the connection out of fasthttp's hands: the raw connection and
// what fasthttp had read of it beyond the request.
func release(hc net.Conn) (raw net.Conn, early []byte, err error) {
	u, ok := hc.(interface{ UnsafeConn() net.Conn })
	if !ok {
		_ = hc.Close()
		return nil, nil, errors.New("fasthttp no longer gives the connection away")
	}
	raw = u.UnsafeConn()
	// With a deadline in the past only what is buffered can be read.
	_ = raw.SetReadDeadline(time.Unix(1, 0))
	if early, err = readEarly(hc); !errors.Is(err, os.ErrDeadlineExceeded) {
		_ = raw.Close()
		return nil, nil, errors.Join(errors.New("connection lost before the upgrade"), err)
	}
	return raw, early, raw.SetDeadline(time.Time{})
}

// readEarly reads until there is nothing more, which is an error; nil means that it
// is more than fasthttp can have.
func readEarly(r io.Reader) (early []byte, err error) {
	b := earlyBuffers.Get().(*[512]byte)
	defer earlyBuffers.Put(b)
	for err == nil && len(early) <= maxHead {
		var n int
		n, err = r.Read(b[:])
		early = append(early, b[:n]...)
	}
	return early, err
}

var earlyBuffers = sync.Pool{New: func() any { return new([512]byte) }}
