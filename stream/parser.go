package stream

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

// parser is one connection of the WebSocket library that parses the messages of many
// clients, one whole message at a time. So a silent client costs nothing, where a
// library connection for each would cost kilobytes.
//
// A byte of one client that stayed in the parser would reach the next client. So a
// parser gets exactly one whole message from the splitter. If it has not consumed all
// of it, it is thrown away.
type parser struct {
	lib *websocket.Conn
	br  *bufio.Reader // lib's
	in  []byte        // what lib has not read yet
}

// errParser means that the library has not consumed exactly what it was given.
var errParser = errors.New("the parser was given more or less than one message")

// newParser creates a library connection from a handshake that no client has sent.
func newParser() (*parser, error) {
	p := &parser{}
	p.br = bufio.NewReaderSize(parserConn{p}, 1024)
	r := &http.Request{Method: http.MethodGet, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"},
		"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"AAAAAAAAAAAAAAAAAAAAAA=="},
	}}
	var err error
	p.lib, err = websocket.Accept(parserResponse{p, http.Header{}}, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return nil, err
	}
	p.lib.SetReadLimit(notify.MaxClientFrame)
	return p, nil
}

// parse returns the message that raw is, and whether it is text. After an error p
// must not be used again.
func (p *parser) parse(raw []byte) (text bool, data []byte, err error) {
	p.in = raw
	defer func() { p.in = nil }()
	typ, r, err := p.lib.Reader(context.Background())
	if err != nil {
		return false, nil, err
	}
	if data, err = io.ReadAll(r); err != nil {
		return false, nil, err
	}
	if len(p.in) > 0 || p.br.Buffered() > 0 {
		return false, nil, errParser
	}
	return typ == websocket.MessageText, data, nil
}

// parserResponse is the http.ResponseWriter of a parser's handshake.
type parserResponse struct {
	p      *parser
	header http.Header
}

func (w parserResponse) Header() http.Header         { return w.header }
func (w parserResponse) Write(b []byte) (int, error) { return len(b), nil }
func (w parserResponse) WriteHeader(int)             {}
func (w parserResponse) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return parserConn{w.p}, bufio.NewReadWriter(w.p.br, bufio.NewWriterSize(parserConn{w.p}, 192)), nil
}

// parserConn is the connection that the library sees. It holds one message, and
// discards what the library writes.
type parserConn struct{ p *parser }

func (c parserConn) Read(b []byte) (int, error) {
	if len(c.p.in) == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n := copy(b, c.p.in)
	c.p.in = c.p.in[n:]
	return n, nil
}

func (parserConn) Write(b []byte) (int, error)      { return len(b), nil }
func (parserConn) Close() error                     { return nil }
func (parserConn) LocalAddr() net.Addr              { return nil }
func (parserConn) RemoteAddr() net.Addr             { return nil }
func (parserConn) SetDeadline(time.Time) error      { return nil }
func (parserConn) SetReadDeadline(time.Time) error  { return nil }
func (parserConn) SetWriteDeadline(time.Time) error { return nil }

// parsers is a pool. It holds as many parsers as messages were ever parsed at once.
type parsers struct {
	mu   sync.Mutex
	idle []*parser // guarded by mu
}

// parse parses one whole message, as parser.parse does.
func (ps *parsers) parse(raw []byte) (text bool, data []byte, err error) {
	p, err := ps.take()
	if err != nil {
		return false, nil, err
	}
	text, data, err = p.parse(raw)
	if err != nil {
		_ = p.lib.CloseNow()
		return false, nil, err
	}
	ps.mu.Lock()
	ps.idle = append(ps.idle, p)
	ps.mu.Unlock()
	return text, data, nil
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
