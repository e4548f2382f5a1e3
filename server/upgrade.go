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

// This file is the bridge from fasthttp to the WebSocket library, and the only place
// that takes a connection away from fasthttp. Before a change, note:
//
//   - Accept takes net/http's types. The conversion of fasthttpadaptor aliases memory
//     that the next request reuses, and collapses repeated headers; its Hijacker loses
//     the 101. So the few headers that Accept reads are copied.
//   - Accept's Hijack fails on purpose. By then Accept has validated the request and
//     written the answer's head, and only these are needed: a library connection for
//     each client would cost kilobytes (see stream/parser.go).
//   - The transport takes the descriptor out of fasthttp's connection, and the hijack
//     handler returns at once. fasthttp then closes its connection and reuses the
//     request and its buffers. The handler must not touch *fiber.Ctx.
//   - Bytes that arrived in one segment with the request are in fasthttp's reader.

var acceptOptions = websocket.AcceptOptions{
	Subprotocols:       []string{auth.Subprotocol},
	InsecureSkipVerify: true, // visit has checked the Origin, more strictly than the library does
	CompressionMode:    websocket.CompressionDisabled,
}

// handshake validates the request with the library and returns the head of the 101
// answer.
func handshake(c *fiber.Ctx) (head []byte, _ error) {
	u := upgrades.Get().(*upgrade)
	defer u.release()
	_, err := websocket.Accept(&u.answer, u.copyRequest(c), &acceptOptions)
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

// upgrade is a request as the library's Accept takes it, and its answer. Accept keeps
// no reference to it, so it is pooled.
type upgrade struct {
	request http.Request
	values  [len(handshakeHeaders)][1]string
	answer  upgradeWriter
}

var upgrades = sync.Pool{New: func() any {
	return &upgrade{request: http.Request{Header: http.Header{}}, answer: upgradeWriter{header: http.Header{}}}
}}

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

// copyRequest copies what Accept reads of a request: every value of these headers.
func (u *upgrade) copyRequest(c *fiber.Ctx) *http.Request {
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

// hijack takes the connection away from fasthttp and passes it to serve. After serve
// has returned, fasthttp closes its own connection. early is what the client has sent
// right behind the request.
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

// upgradeWriter is the http.ResponseWriter of the library's Accept.
type upgradeWriter struct {
	header http.Header
	status int
}

func (w *upgradeWriter) Header() http.Header                          { return w.header }
func (w *upgradeWriter) Write(p []byte) (int, error)                  { return len(p), nil }
func (w *upgradeWriter) WriteHeader(status int)                       { w.status = cmp.Or(w.status, status) }
func (w *upgradeWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) { return nil, nil, errTakenOver }

// problem returns the library's refusal as the API's error.
func (w *upgradeWriter) problem() *problem {
	if w.status == http.StatusUpgradeRequired {
		return &problem{status: w.status, code: "upgrade_required", detail: "this path speaks WebSocket: ask for it with Upgrade: websocket"}
	}
	return &problem{status: w.status, code: "bad_handshake", detail: "the WebSocket handshake is not valid (RFC 6455, 4.2.1)"}
}

// switchingProtocols returns the head of the library's 101 answer.
func switchingProtocols(w *upgradeWriter) []byte {
	head := append(make([]byte, 0, 192), "HTTP/1.1 101 Switching Protocols\r\n"...)
	for _, name := range []string{"Upgrade", "Connection", "Sec-Websocket-Accept", "Sec-Websocket-Protocol"} {
		if v := w.header.Get(name); v != "" {
			head = append(append(append(append(head, name...), ": "...), v...), "\r\n"...)
		}
	}
	return append(head, "\r\n"...)
}

// release returns the raw connection behind fasthttp's, and what fasthttp has read of it
// beyond the request.
func release(hc net.Conn) (raw net.Conn, early []byte, err error) {
	u, ok := hc.(interface{ UnsafeConn() net.Conn })
	if !ok {
		_ = hc.Close()
		return nil, nil, errors.New("fasthttp has no UnsafeConn")
	}
	raw = u.UnsafeConn()
	// A deadline in the past fails every read that would reach beyond fasthttp's buffer.
	_ = raw.SetReadDeadline(time.Unix(1, 0))
	if early, err = readEarly(hc); !errors.Is(err, os.ErrDeadlineExceeded) {
		_ = raw.Close()
		return nil, nil, errors.Join(errors.New("connection lost before the upgrade"), err)
	}
	return raw, early, raw.SetDeadline(time.Time{})
}

// readEarly reads until the deadline's error, when the buffer is empty. A nil error means
// more bytes than fasthttp's buffer can hold.
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
