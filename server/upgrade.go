package server

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
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
//   - Accept runs twice: first on a writer that cannot be hijacked, which
//     validates everything and answers 501, or the real refusal; then, on the
//     hijacked connection, for the 101.
//   - Closing what fasthttp hands out is not always closing the connection, and
//     every timeout works by closing: the raw connection is used instead.
//   - Bytes that came in one segment with the request sit in fasthttp's reader.
//   - The hijack handler returns quickly: that frees the request and its
//     buffers. Nothing of *fiber.Ctx may be touched in it.

var acceptOptions = websocket.AcceptOptions{
	Subprotocols:       []string{auth.Subprotocol},
	InsecureSkipVerify: true, // the Origin has been checked, more exactly than the library would
	CompressionMode:    websocket.CompressionDisabled,
}

// upgrade validates the handshake and takes the connection over.
func (s *Server) upgrade(c *fiber.Ctx, st *stream) error {
	r := handshakeRequest(c)
	if refusal := dryAccept(r); refusal != nil {
		for name, v := range refusal.header {
			c.Set(name, v[0])
		}
		return refusal.problem
	}
	s.hijack(c, func(raw net.Conn, early []byte) {
		st.serveWebSocket(func(fenced net.Conn) (*websocket.Conn, error) { return accept(r, fenced, raw, early) }, raw)
	})
	return nil
}

// hijack takes the connection away from fasthttp and has serve run on it, in a
// goroutine that Shutdown waits for, until serve returns; then it is closed.
// early is what the client sent right behind the request.
func (s *Server) hijack(c *fiber.Ctx, serve func(raw net.Conn, early []byte)) {
	c.Context().HijackSetNoResponse(true)
	c.Context().Hijack(func(hc net.Conn) {
		raw, early, err := release(hc)
		if err != nil {
			return
		}
		s.streams.run(func() {
			defer func() {
				_ = raw.Close()
				if v := recover(); v != nil {
					s.panicked("stream", v)
				}
			}()
			serve(raw, early)
		})
	})
}

// handshakeRequest is what the library's Accept reads of a request, every value
// of each header, copied.
func handshakeRequest(c *fiber.Ctx) *http.Request {
	h := http.Header{}
	for _, name := range []string{
		"Connection", "Upgrade", "Sec-Websocket-Version", "Sec-Websocket-Key",
		"Sec-Websocket-Protocol", "Sec-Websocket-Extensions",
	} {
		if v := values(c, name); v != nil {
			h[http.CanonicalHeaderKey(name)] = v
		}
	}
	r := &http.Request{Method: c.Method(), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: h}
	if !c.Request().Header.IsHTTP11() {
		r.Proto, r.ProtoMinor = "HTTP/1.0", 0
	}
	return r
}

// refusal is the library's own answer to a handshake.
type refusal struct {
	*problem
	header http.Header
}

// dryAccept lets the library validate the handshake without a connection.
func dryAccept(r *http.Request) *refusal {
	w := &answerWriter{header: http.Header{}}
	_, _ = websocket.Accept(w, r, &acceptOptions)
	if w.status == http.StatusNotImplemented {
		return nil // valid: only the connection was missing
	}
	w.header.Del("Content-Type")
	w.header.Del("X-Content-Type-Options")
	w.header.Del("Content-Length")
	p := &problem{status: w.status, code: "bad_handshake", detail: "the WebSocket handshake is not valid (RFC 6455, 4.2.1)"}
	if w.status == http.StatusUpgradeRequired {
		p.code, p.detail = "upgrade_required", "this path speaks WebSocket: ask for it with Upgrade: websocket"
	}
	return &refusal{problem: p, header: w.header}
}

// answerWriter records an answer's head. It is no Hijacker.
type answerWriter struct {
	header http.Header
	status int
}

func (w *answerWriter) Header() http.Header         { return w.header }
func (w *answerWriter) Write(p []byte) (int, error) { return len(p), nil }
func (w *answerWriter) WriteHeader(status int)      { w.status = status }

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
	early, err = io.ReadAll(io.LimitReader(hc, maxHead+1))
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		_ = raw.Close()
		return nil, nil, errors.Join(errors.New("connection lost before the upgrade"), err)
	}
	return raw, early, raw.SetDeadline(time.Time{})
}

// accept writes the 101 on the raw connection and gives the library the fenced
// one, with the early bytes in front.
func accept(r *http.Request, fenced, raw net.Conn, early []byte) (*websocket.Conn, error) {
	w := &upgradeWriter{answerWriter: answerWriter{header: http.Header{}}, fenced: fenced, raw: raw, early: early}
	return websocket.Accept(w, r, &acceptOptions)
}

// readBuffer and writeBuffer are the library's buffers, in bytes: what clients
// send is small, and the library writes control frames only.
const (
	readBuffer  = 1024
	writeBuffer = 192
)

type upgradeWriter struct {
	answerWriter
	fenced, raw net.Conn
	early       []byte
}

func (w *upgradeWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if err := w.writeHead(); err != nil {
		return nil, nil, err
	}
	conn := w.fenced
	if len(w.early) > 0 {
		conn = &earlyConn{Conn: w.fenced, early: w.early}
	}
	return conn, bufio.NewReadWriter(bufio.NewReaderSize(conn, readBuffer), bufio.NewWriterSize(conn, writeBuffer)), nil
}

func (w *upgradeWriter) writeHead() error {
	head := []byte("HTTP/1.1 101 Switching Protocols\r\n")
	for _, name := range []string{"Upgrade", "Connection", "Sec-Websocket-Accept", "Sec-Websocket-Protocol"} {
		if v := w.header.Get(name); v != "" {
			head = append(head, name+": "+v+"\r\n"...)
		}
	}
	_ = w.raw.SetWriteDeadline(time.Now().Add(writeTimeout))
	defer func() { _ = w.raw.SetWriteDeadline(time.Time{}) }()
	_, err := w.raw.Write(append(head, "\r\n"...))
	return err
}

// earlyConn is a connection whose first bytes have already been read.
type earlyConn struct {
	net.Conn
	early []byte
}

func (c *earlyConn) Read(p []byte) (int, error) {
	if len(c.early) > 0 {
		n := copy(p, c.early)
		c.early = c.early[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}
