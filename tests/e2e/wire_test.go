package e2e

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"herald/internal/testing/gatewaytest"
)

// patience is the timeout for everything that must happen.
const patience = 30 * time.Second

// The opcodes of RFC 6455, 5.2.
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xa
	fin            = 0x80
)

// socket is a WebSocket client that can also send invalid frames. It answers pings while
// it reads, and a close unless mute.
type socket struct {
	conn net.Conn
	head *http.Response // the 101
	mute bool           // closes are not answered

	// Owned by the reader.
	br    *bufio.Reader
	pings int
	pongs int

	mu sync.Mutex // held to write
}

// message has the fields of all server frames.
type message struct {
	Type         string
	UserID       string `json:"userId"`
	ConnectionID string `json:"connectionId"`
	Last, Read   int64
	Unread, Ping int
	ID, Prev, TS int64
	Kind         string
	TraceParent  string
	Message      json.RawMessage
	After, Next  int64
	UpTo         int64 `json:"upTo"`
	Code         int
	Reason       string
	RetryAfterMs int `json:"retryAfterMs"`
	Error        string

	raw string
}

// closed says how the server ended a connection: code 0 without a close frame.
type closed struct {
	code   int
	reason string
}

func (c closed) Error() string { return fmt.Sprintf("closed with %d %q", c.code, c.reason) }

// dialOptions says how a socket is opened. The zero value works.
type dialOptions struct {
	path       string   // default /ws
	header     []string // "Name: value" lines
	early      []byte   // sent in the same segment as the request
	recvBuffer int      // SO_RCVBUF, bytes
}

// dial opens a socket. An answer other than 101 is returned as an error.
func dial(addr string, o dialOptions) (*socket, error) {
	conn, err := dialTCP(addr, o.recvBuffer)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(append(handshake(addr, o), o.early...)); err != nil {
		_ = conn.Close()
		return nil, err
	}
	s := &socket{conn: conn, br: bufio.NewReader(conn)}
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	if s.head, err = http.ReadResponse(s.br, nil); err != nil {
		_ = conn.Close()
		return nil, err
	}
	if s.head.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(s.head.Body)
		_ = conn.Close()
		return nil, fmt.Errorf("upgrade refused: %s %s", s.head.Status, body)
	}
	return s, nil
}

func dialTCP(addr string, recvBuffer int) (net.Conn, error) {
	d := net.Dialer{Timeout: patience}
	if recvBuffer > 0 {
		// Before connecting, so that the window is small from the first segment on.
		d.Control = func(_, _ string, c syscall.RawConn) (err error) {
			return errors.Join(c.Control(func(fd uintptr) {
				err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, recvBuffer)
			}), err)
		}
	}
	return d.Dial("tcp", addr)
}

func handshake(addr string, o dialOptions) []byte {
	path := o.path
	if path == "" {
		path = "/ws"
	}
	var nonce [16]byte
	_, _ = rand.Read(nonce[:]) // never fails
	var b bytes.Buffer
	fmt.Fprintf(&b, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n", path, addr, base64.StdEncoding.EncodeToString(nonce[:]))
	for _, line := range o.header {
		b.WriteString(line + "\r\n")
	}
	b.WriteString("\r\n")
	return b.Bytes()
}

// bearer returns the Authorization header line with the user's token.
func bearer(userID string) string { return "Authorization: Bearer " + gatewaytest.UserToken(userID) }

// connect opens a socket that is closed with the test and reads its hello.
func connect(t testing.TB, g *gatewaytest.Gateway, o dialOptions) (*socket, message) {
	t.Helper()
	s, err := dial(g.Addr(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.conn.Close() })
	hello := s.expect(t, "hello")
	return s, hello
}

// connectAs is connect with the user's token.
func connectAs(t testing.TB, g *gatewaytest.Gateway, userID string) *socket {
	t.Helper()
	s, _ := connect(t, g, dialOptions{header: []string{bearer(userID)}})
	return s
}

// connectWith is connect with a session's cookie.
func connectWith(t testing.TB, g *gatewaytest.Gateway, session gatewaytest.Session) *socket {
	t.Helper()
	s, _ := connect(t, g, dialOptions{header: []string{session.Cookie(), g.Origin()}})
	return s
}

// frame encodes one masked client frame.
func frame(first byte, payload []byte) []byte {
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n <= 0xffff:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	mask := [4]byte{0x12, 0x34, 0x56, 0x78}
	b = append(b, mask[:]...)
	for i, c := range payload {
		b = append(b, c^mask[i%4])
	}
	return b
}

func (s *socket) write(p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.conn.SetWriteDeadline(time.Now().Add(patience))
	_, err := s.conn.Write(p)
	return err
}

func (s *socket) send(first byte, payload []byte) error { return s.write(frame(first, payload)) }

func (s *socket) text(text string) error { return s.send(fin|opText, []byte(text)) }

// readFrame reads one frame of the server, which must be unmasked and whole.
func (s *socket) readFrame() (first byte, payload []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(s.br, head[:]); err != nil {
		return 0, nil, err
	}
	n := uint64(head[1] & 0x7f)
	if head[1]&0x80 != 0 {
		return 0, nil, errors.New("the server masks its frames")
	}
	ext := map[uint64]int{126: 2, 127: 8}[n]
	if ext > 0 {
		var b [8]byte
		if _, err := io.ReadFull(s.br, b[8-ext:]); err != nil {
			return 0, nil, err
		}
		n = binary.BigEndian.Uint64(b[:])
	}
	if n > 1<<20 {
		return 0, nil, fmt.Errorf("a frame of %d bytes", n)
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(s.br, payload)
	return head[0], payload, err
}

// next waits for the next message. Its error is a closed once the server has
// closed, anything else is a failure.
func (s *socket) next() (message, error) { return s.nextWithin(patience) }

func (s *socket) nextWithin(d time.Duration) (message, error) {
	_ = s.conn.SetReadDeadline(time.Now().Add(d))
	for {
		first, payload, err := s.readFrame()
		if err != nil {
			return message{}, endOf(err)
		}
		switch first {
		case fin | opText:
			m := message{raw: string(payload)}
			err := json.Unmarshal(payload, &m)
			return m, err
		case fin | opPing:
			s.pings++
			_ = s.send(fin|opPong, payload)
		case fin | opPong:
			s.pongs++
		case fin | opClose:
			return message{}, s.closedBy(payload)
		default:
			return message{}, fmt.Errorf("frame with first byte %#x", first)
		}
	}
}

// endOf returns a closed for a connection that ended without a close frame.
func endOf(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) {
		return closed{}
	}
	return err
}

func (s *socket) closedBy(payload []byte) error {
	c := closed{code: 1005}
	if len(payload) >= 2 {
		c = closed{code: int(binary.BigEndian.Uint16(payload)), reason: string(payload[2:])}
	}
	if !s.mute {
		_ = s.send(fin|opClose, payload[:min(2, len(payload))])
	}
	return c
}

// expect waits for a message, which must be of that type.
func (s *socket) expect(t testing.TB, typ string) message {
	t.Helper()
	m, err := s.next()
	if err != nil {
		t.Fatalf("waiting for a %s frame: %v", typ, err)
	}
	if m.Type != typ {
		t.Fatalf("got %s, want a %s frame", m.raw, typ)
	}
	return m
}

// expectClose waits for a close with that code and returns the frames before it. A bye
// frame must precede the gateway's own codes.
func (s *socket) expectClose(t testing.TB, code int) []message {
	t.Helper()
	var before []message
	for {
		m, err := s.next()
		if err == nil {
			before = append(before, m)
			continue
		}
		var c closed
		if !errors.As(err, &c) {
			t.Fatalf("waiting for close %d: %v", code, err)
		}
		if c.code != code {
			t.Fatalf("%v, want %d; before it came %s", c, code, rawOf(before))
		}
		if code >= 4000 {
			checkBye(t, before, code)
		}
		return before
	}
}

func checkBye(t testing.TB, before []message, code int) {
	t.Helper()
	if len(before) == 0 || before[len(before)-1].Type != "bye" || before[len(before)-1].Code != code {
		t.Errorf("no bye frame with code %d just before the close; before it came %s", code, rawOf(before))
	}
}

func rawOf(list []message) string {
	var texts []string
	for _, m := range list {
		texts = append(texts, m.raw)
	}
	return "[" + strings.Join(texts, " ") + "]"
}

// alive sends a ping frame, waits for its pong, and returns the messages that came before
// it.
func (s *socket) alive(t testing.TB) []message {
	t.Helper()
	if err := s.text(`{"type":"ping"}`); err != nil {
		t.Fatalf("ping: %v", err)
	}
	var before []message
	for {
		m, err := s.next()
		switch {
		case err != nil:
			t.Fatalf("waiting for pong: %v", err)
		case m.Type == "pong":
			return before
		}
		before = append(before, m)
	}
}

// gone waits until the server has closed the TCP connection and returns how long that
// took.
func (s *socket) gone(t testing.TB) time.Duration {
	t.Helper()
	began := time.Now()
	_ = s.conn.SetReadDeadline(began.Add(patience))
	if _, err := io.Copy(io.Discard, s.br); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("waiting for the connection's end: %v", err)
	}
	return time.Since(began)
}
