package stream

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"herald/auth"
	"herald/broker"
	"herald/hub"
	"herald/internal/transport"
	"herald/notify"
	"herald/sessions"
)

// pipeConn is a transport.Conn over one end of a net.Pipe. Its buffer is what a
// kernel's send buffer is to a TCP connection.
type pipeConn struct {
	conn net.Conn
	wake chan struct{} // holds one token when flush has work; never closed

	mu     sync.Mutex
	buf    []byte                                      // guarded by mu
	step   func(func([]byte) (int, error)) (done bool) // guarded by mu: Drain's
	closed bool                                        // guarded by mu
}

const pipeBuffer = 64 << 10

// newPipe returns a connection and the client's end of it.
func newPipe() (*pipeConn, net.Conn) {
	client, conn := net.Pipe()
	c := &pipeConn{conn: conn, wake: make(chan struct{}, 1)}
	go c.flush()
	return c, client
}

var _ transport.Conn = (*pipeConn)(nil)

func (c *pipeConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, net.ErrClosed
	}
	n := min(len(p), pipeBuffer-len(c.buf))
	c.buf = append(c.buf, p[:n]...)
	c.signal()
	return n, nil
}

func (c *pipeConn) Drain(step func(func([]byte) (int, error)) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.step = step
	c.signal()
}

// Close lets the client read what was written, as shutdown does.
func (c *pipeConn) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	_ = c.conn.SetReadDeadline(time.Unix(1, 0))
	c.signal()
}

func (c *pipeConn) Abandon() { c.Close() }

func (c *pipeConn) Start(r transport.Receiver) error {
	go func() {
		var b [1024]byte
		for {
			n, err := c.conn.Read(b[:])
			if n > 0 && !r.Receive(b[:n]) || err != nil {
				break
			}
		}
		r.End()
		c.Close()
	}()
	return nil
}

func (c *pipeConn) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// flush moves the buffer to the client, and drains when it is empty.
func (c *pipeConn) flush() {
	defer func() { _ = c.conn.Close() }()
	for {
		c.mu.Lock()
		p, step, closed := c.buf, c.step, c.closed
		c.buf = nil
		if len(p) == 0 {
			c.step = nil
		}
		c.mu.Unlock()
		switch {
		case len(p) > 0:
			if _, err := c.conn.Write(p); err != nil {
				return
			}
		case closed:
			return
		case step != nil:
			if !step(c.Write) {
				c.Drain(step)
			}
		default:
			<-c.wake
		}
	}
}

// node is a gateway's streams with a hub, and with a log in memory instead of Redis.
type node struct {
	t       *testing.T
	hub     *hub.Hub
	streams *Streams
	cork    *hub.Cork

	mu       sync.Mutex
	entries  []notify.Frame // guarded by mu
	last     notify.ID      // guarded by mu
	down     bool           // guarded by mu
	onRead   func()         // guarded by mu: called once, when the log has been read
	sessions map[string]time.Time
	tokens   map[string]auth.Principal
}

// newNode must be called in a synctest bubble.
func newNode(t *testing.T) *node {
	n := &node{t: t, tokens: map[string]auth.Principal{}, sessions: map[string]time.Time{}}
	n.hub = hub.New(hub.Options{
		OnGap:    func(string) { t.Error("an announcement was lost") },
		OnExpiry: func(s *hub.Socket) { n.streams.Expired(s) },
	})
	n.cork = n.hub.NewCork()
	n.streams = New(Deps{Hub: n.hub, Broker: n, Tokens: n, Sessions: n}, Options{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { n.streams.Run(ctx); close(done) }()
	t.Cleanup(func() {
		cancel()
		<-done
		n.hub.Close()
		if err := n.streams.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return n
}

func (n *node) set(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
}

var errDown = errors.New("redis is down")

func (n *node) State(context.Context, string) (broker.State, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.down {
		return broker.State{}, errDown
	}
	return broker.State{Last: n.last}, nil
}

func (n *node) After(_ context.Context, _ string, after notify.ID, limit, _ int) (broker.Page, error) {
	n.mu.Lock()
	page := broker.Page{Last: n.last}
	for _, m := range n.entries {
		if page.Full = len(page.Entries) == limit; page.Full {
			break
		}
		if m.ID > after {
			page.Entries = append(page.Entries, m)
		}
	}
	onRead := n.onRead
	n.onRead = nil
	n.mu.Unlock()
	if onRead != nil {
		onRead()
	}
	return page, nil
}

func (n *node) MarkRead(_ context.Context, _ string, upTo notify.ID) (broker.State, error) {
	return broker.State{Last: upTo, Read: upTo}, nil
}

func (n *node) Verify(_ context.Context, token string) (auth.Principal, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p, ok := n.tokens[token]
	if !ok {
		return p, auth.ErrCredentials
	}
	return p, nil
}

func (n *node) Expiries(_ context.Context, refs []sessions.Ref) ([]time.Time, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	expiries := make([]time.Time, len(refs))
	for i, ref := range refs {
		expiries[i] = n.sessions[ref.Handle]
	}
	return expiries, nil
}

func (n *node) Forget(map[string]bool) {}

// publish stores a notification for user 42 and announces it. Its message is its id.
func (n *node) publish() {
	n.mu.Lock()
	m := notify.Frame{Event: "notification", ID: n.last + 1, Prev: n.last}
	m.JSON = fmt.Sprintf(`{"type":"notification","id":%d,"prev":%d,"ts":1,"message":%[1]d}`, m.ID, m.Prev)
	n.entries, n.last = append(n.entries, m), m.ID
	n.mu.Unlock()
	n.cork.Deliver("42", m)
	n.cork.Uncork()
}

func (n *node) publishMany(count int) {
	for range count {
		n.publish()
	}
}

// client is the other end of a WebSocket stream.
type client struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

// connect opens a WebSocket stream of user 42.
func (n *node) connect(a Admission) *client {
	n.t.Helper()
	return n.open(n.streams.OpenWebSocket, a)
}

type opener func(conn transport.Conn, head, early []byte, a Admission) error

func (n *node) open(open opener, a Admission) *client {
	n.t.Helper()
	a.UserID, a.CheckedAt = "42", time.Now()
	conn, end := newPipe()
	n.t.Cleanup(func() { _ = end.Close() })
	if err := open(conn, []byte("HEAD\r\n\r\n"), nil, a); err != nil {
		n.t.Fatal(err)
	}
	c := &client{n.t, end, bufio.NewReader(end)}
	if head, err := c.r.Peek(8); err == nil && string(head) == "HEAD\r\n\r\n" {
		_, _ = c.r.Discard(8)
	}
	return c
}

func (c *client) write(b []byte) {
	c.t.Helper()
	if _, err := c.conn.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) send(format string, args ...any) {
	c.t.Helper()
	c.write(clientFrame(finBit|opText, fmt.Sprintf(format, args...)))
}

// expect reads frames and compares the short form of each.
func (c *client) expect(want ...string) {
	c.t.Helper()
	for i, w := range want {
		if got := c.next(); got != w {
			c.t.Fatalf("frame %d is %s, want %s", i, got, w)
		}
	}
}

// next returns a frame's short form, "end" at the end of the connection.
func (c *client) next() string {
	head, err := c.r.Peek(2)
	if err != nil {
		return "end"
	}
	op, size, skip := head[0]&opBits, int(head[1]), 2
	if size == 126 {
		if head, err = c.r.Peek(4); err != nil {
			return err.Error()
		}
		size, skip = int(binary.BigEndian.Uint16(head[2:])), 4
	}
	payload := make([]byte, skip+size)
	if _, err := io.ReadFull(c.r, payload); err != nil {
		return err.Error()
	}
	payload = payload[skip:]
	switch op {
	case opClose:
		return fmt.Sprint("close ", binary.BigEndian.Uint16(payload))
	case opText:
		return shortForm(payload)
	}
	return fmt.Sprint("opcode ", op)
}

func shortForm(frame []byte) string {
	var f struct {
		Type              string
		Last, After, Next notify.ID
		UpTo              notify.ID
		Code              int
		Message           json.RawMessage
	}
	if err := json.Unmarshal(frame, &f); err != nil {
		return fmt.Sprintf("%v: %s", err, frame)
	}
	switch f.Type {
	case "notification":
		return string(f.Message)
	case "hello":
		return fmt.Sprint("hello ", f.Last)
	case "gap":
		return fmt.Sprint("gap ", f.After, " ", f.Next)
	case "bye":
		return fmt.Sprint("bye ", f.Code)
	}
	return f.Type
}

func repeat(s string, n int) []string { return slices.Repeat([]string{s}, n) }

// readFrom begins to read.
func (c *client) readFrom(r io.Reader) { c.r = bufio.NewReader(r) }
