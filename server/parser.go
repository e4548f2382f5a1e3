package server

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"

	"herald/notify"
)

// A parser is one connection of the WebSocket library that parses the messages
// of many clients, one whole message at a time. A client costs nothing while it
// says nothing, where a library connection each would cost kilobytes.
//
// The one danger is a byte of one client that is left in the parser for the
// next. So a parser is given exactly one whole message (the cutter's work), must
// have taken all of it, and is thrown away otherwise, together with its client's
// connection.
type parser struct {
	lib *websocket.Conn
	br  *bufio.Reader // lib's
	in  []byte        // what lib has still to read
	say func(frame []byte)
}

// errParser means that the library has not consumed exactly what it was given.
var errParser = errors.New("the parser was given more or less than one message")

// newParser has the library accept a handshake that nobody sent.
func newParser() (*parser, error) {
	p := &parser{}
	p.br = bufio.NewReaderSize(parserConn{p}, 1024)
	r := &http.Request{Method: http.MethodGet, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"},
		"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"AAAAAAAAAAAAAAAAAAAAAA=="},
	}}
	w := &upgradeWriter{header: http.Header{}, hijack: func() (net.Conn, *bufio.ReadWriter, error) {
		return parserConn{p}, bufio.NewReadWriter(p.br, bufio.NewWriterSize(parserConn{p}, 192)), nil
	}}
	var err error
	if p.lib, err = websocket.Accept(w, r, &acceptOptions); err != nil {
		return nil, err
	}
	p.lib.SetReadLimit(notify.MaxClientFrame)
	return p, nil
}

// parse returns the message that raw is. say gets the frames that the library
// answers with: a close frame, if raw breaks the protocol or is one. After an
// error p must not be used again.
func (p *parser) parse(raw []byte, say func(frame []byte)) (websocket.MessageType, []byte, error) {
	p.in, p.say = raw, say
	defer func() { p.in, p.say = nil, nil }()
	typ, r, err := p.lib.Reader(context.Background())
	if err != nil {
		return 0, nil, err
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return 0, nil, err
	}
	if len(p.in) > 0 || p.br.Buffered() > 0 {
		return 0, nil, errParser
	}
	return typ, data, nil
}

// parserConn is what the library sees of a connection: the one message, and
// whoever is to have its answer.
type parserConn struct{ p *parser }

func (c parserConn) Read(b []byte) (int, error) {
	if len(c.p.in) == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n := copy(b, c.p.in)
	c.p.in = c.p.in[n:]
	return n, nil
}

// Write takes one frame.
func (c parserConn) Write(b []byte) (int, error) {
	if c.p.say != nil {
		c.p.say(append([]byte(nil), b...)) // the library reuses b
	}
	return len(b), nil
}

func (parserConn) Close() error                     { return nil }
func (parserConn) LocalAddr() net.Addr              { return nil }
func (parserConn) RemoteAddr() net.Addr             { return nil }
func (parserConn) SetDeadline(time.Time) error      { return nil }
func (parserConn) SetReadDeadline(time.Time) error  { return nil }
func (parserConn) SetWriteDeadline(time.Time) error { return nil }

// parsers are those that wait for the next message of anybody; there are as many
// as messages were ever parsed at once.
type parsers struct {
	mu   sync.Mutex
	idle []*parser // guarded by mu
}

// parse parses one whole message.
func (ps *parsers) parse(raw []byte, say func(frame []byte)) (websocket.MessageType, []byte, error) {
	p, err := ps.take()
	if err != nil {
		return 0, nil, err
	}
	typ, data, err := p.parse(raw, say)
	if err != nil {
		_ = p.lib.CloseNow()
		return 0, nil, err
	}
	ps.mu.Lock()
	ps.idle = append(ps.idle, p)
	ps.mu.Unlock()
	return typ, data, nil
}

func (ps *parsers) take() (*parser, error) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if n := len(ps.idle); n > 0 {
		p := ps.idle[n-1]
		ps.idle = ps.idle[:n-1]
		return p, nil
	}
	return newParser()
}

// refuse has a parser of its own look at what is no message, or is a close
// frame, for the answer that the library has for it.
func refuse(raw []byte, say func(frame []byte)) {
	p, err := newParser()
	if err != nil {
		return
	}
	_, _, _ = p.parse(raw, say)
	_ = p.lib.CloseNow()
}
