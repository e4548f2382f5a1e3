package broker

import (
	"bytes"
	"context"
	"net"
	"strconv"

	"github.com/redis/go-redis/v9"
)

// Subscriber is the client that Listen subscribes with. It parses messages for users in its
// own buffer without copying, because each node gets those of all users and most have no
// socket here. go-redis handles all other replies. It also reports when everything that
// Redis has sent so far has been received.
type Subscriber struct {
	rdb *redis.Client

	// Called on Listen's goroutine, the only reader. The arguments of message are valid
	// until it returns.
	message func(channel, payload string)
	idle    func()
}

// readBuffer is the size of one read, in bytes. go-redis reads 32 KiB, about a hundred
// messages, from a subscription, whatever Options.ReadBufferSize says.
const readBuffer = 1 << 20

// NewSubscriber returns a client for one Listen, configured by a copy of o. It must be
// closed.
func NewSubscriber(o *redis.Options) *Subscriber {
	s := &Subscriber{message: func(string, string) {}, idle: func() {}}
	own := *o
	own.MinIdleConns, own.PoolSize = 0, 2
	dial := own.Dialer
	if dial == nil {
		dial = redis.NewDialer(&own)
	}
	own.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return newSubscriberConn(c, s), nil
	}
	s.rdb = redis.NewClient(&own)
	return s
}

// Close closes the client, which interrupts a running Listen.
func (s *Subscriber) Close() error { return s.rdb.Close() }

// subscriberConn is the connection from which go-redis reads a subscription. Owned by the
// reading goroutine.
//
//	buf  … pmessage │ pmessage │ subscribe │ pmessage │ pmess
//	                r: ours    │ go-redis's ╯          cut  │ w
//
// go-redis gets complete replies only, and reads again when it has consumed them. So
// messages and replies keep their order.
type subscriberConn struct {
	net.Conn
	sub  *Subscriber
	buf  []byte
	r, w int  // received and not yet handled: buf[r:w]
	end  int  // buf[r:end] is for go-redis; empty unless end > r
	odd  bool // something was not a RESP2 reply: from there on go-redis gets everything
}

func newSubscriberConn(c net.Conn, s *Subscriber) *subscriberConn {
	return &subscriberConn{Conn: c, sub: s, buf: make([]byte, readBuffer)}
}

// Read returns the replies that are not messages for users.
func (c *subscriberConn) Read(p []byte) (int, error) {
	for c.r >= c.end {
		if c.dispatch(); c.r < c.end {
			break
		}
		c.sub.idle()
		c.makeRoom()
		n, err := c.Conn.Read(c.buf[c.w:])
		c.w += n
		if err != nil && n == 0 {
			return 0, err
		}
	}
	n := copy(p, c.buf[c.r:c.end])
	c.r += n
	return n, nil
}

// dispatch handles messages until another reply comes or the rest is incomplete.
func (c *subscriberConn) dispatch() {
	for c.r < c.w && !c.odd {
		b := c.buf[c.r:c.w]
		channel, payload, n := cutMessage(b)
		if n == 0 {
			n = replyLen(b)
			c.odd = n < 0
			c.end = c.r + max(n, 0)
			break
		}
		if n < 0 {
			return
		}
		c.r += n
		c.sub.message(view(channel), view(payload))
	}
	if c.odd {
		c.end = c.w
	}
}

// makeRoom frees space at the end of buf.
func (c *subscriberConn) makeRoom() {
	if c.r > 0 {
		c.w = copy(c.buf, c.buf[c.r:c.w])
		c.r, c.end = 0, 0
	}
	switch {
	case c.w == len(c.buf): // one message is larger
		c.buf = append(c.buf, make([]byte, len(c.buf))...)
	case c.w == 0 && len(c.buf) > readBuffer:
		c.buf = make([]byte, readBuffer)
	}
}

// messageHead is the beginning of a message that matched channelPattern.
var messageHead = []byte("*4\r\n$8\r\npmessage\r\n$" + strconv.Itoa(len(channelPattern)) + "\r\n" + channelPattern + "\r\n")

// cutMessage returns the channel, payload and length n of such a message at the beginning
// of b. n is 0 if b begins with something else, -1 if the message is incomplete.
func cutMessage(b []byte) (channel, payload []byte, n int) {
	if !bytes.HasPrefix(b, messageHead) {
		if bytes.HasPrefix(messageHead, b) {
			return nil, nil, -1
		}
		return nil, nil, 0
	}
	n = len(messageHead)
	for _, s := range []*[]byte{&channel, &payload} {
		if n == len(b) {
			return nil, nil, -1
		}
		text, size := bulk(b[n:])
		if size <= 0 || text == nil {
			return nil, nil, min(size, 0)
		}
		*s = text
		n += size
	}
	return channel, payload, n
}

// bulk reads a bulk string, "$1\r\na\r\n", or "$-1\r\n" for null. size is its whole length,
// -1 if it is incomplete, 0 if b begins with something else.
func bulk(b []byte) (text []byte, size int) {
	n, line := number(b, '$')
	if line <= 0 || n < 0 {
		return nil, line
	}
	size = line + n + len("\r\n")
	if len(b) < size {
		return nil, -1
	}
	if b[size-2] != '\r' || b[size-1] != '\n' {
		return nil, 0
	}
	return b[line : line+n], size
}

// replyLen returns the length of the RESP2 reply at the beginning of b
// (https://redis.io/docs/latest/develop/reference/protocol-spec/); 0 if it is incomplete,
// -1 if b begins with something else.
func replyLen(b []byte) (n int) {
	for replies := 1; replies > 0; replies-- {
		if n == len(b) {
			return 0
		}
		switch b[n] {
		case '+', '-', ':':
			line := bytes.IndexByte(b[n:], '\n') + 1
			if line == 0 {
				return 0
			}
			n += line
		case '$':
			_, size := bulk(b[n:])
			if size <= 0 {
				return -size - 1
			}
			n += size
		case '*':
			more, line := number(b[n:], '*')
			if line <= 0 {
				return -line - 1
			}
			n += line
			replies += max(more, 0)
		default:
			return -1
		}
	}
	return n
}

// number reads a line of a type and a length, such as "$12\r\n" or "$-1\r\n". line is the
// line's length, -1 if it is incomplete, 0 if b begins with something else.
func number(b []byte, kind byte) (v, line int) {
	const longest = len("$2147483647\r\n")
	line = bytes.IndexByte(b[:min(len(b), longest)], '\n') + 1
	switch {
	case b[0] != kind:
		return 0, 0
	case line == 0 && len(b) < longest:
		return 0, -1
	case line < len("$0\r\n") || b[line-2] != '\r':
		return 0, 0
	}
	digits := b[1 : line-2]
	if string(digits) == "-1" {
		return -1, line
	}
	if digits[0] == '0' && len(digits) > 1 {
		return 0, 0
	}
	for _, d := range digits {
		if d < '0' || d > '9' {
			return 0, 0
		}
		v = 10*v + int(d-'0')
	}
	return v, line
}
