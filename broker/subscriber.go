package broker

import (
	"bytes"
	"context"
	"net"
	"strconv"

	"github.com/redis/go-redis/v9"
)

// Subscriber is the client that Listen subscribes with. It reads messages for
// users itself, where they lie in its buffer: each node gets those of all users,
// and most are for nobody here. Everything else on the connection is go-redis's. It
// also tells when all that Redis has sent so far has been received.
type Subscriber struct {
	rdb *redis.Client

	// Called on Listen's goroutine, which alone reads. What message gets is valid
	// until it returns.
	message func(channel, payload string)
	idle    func()
}

// readBuffer is how much is received at once, in bytes. go-redis reads 32 KiB from
// a subscription, whatever its Options.ReadBufferSize: a hundred messages.
const readBuffer = 1 << 20

// NewSubscriber returns a client by o, of which it keeps nothing, for one Listen.
// It must be closed.
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

// Close ends the client and with it a Listen under way.
func (s *Subscriber) Close() error { return s.rdb.Close() }

// subscriberConn is what go-redis reads a subscription from. Owned by the
// goroutine that reads.
//
//	buf  … pmessage │ pmessage │ subscribe │ pmessage │ pmess
//	                r: ours    │ go-redis's ╯          cut  │ w
//
// go-redis gets whole replies only, and reads again when it has taken those: so
// nothing overtakes anything.
type subscriberConn struct {
	net.Conn
	sub  *Subscriber
	buf  []byte
	r, w int  // what has come and is not dealt with: buf[r:w]
	end  int  // of what go-redis is to have: buf[r:end]; nothing unless end > r
	odd  bool // something came that is no reply of RESP2: all is go-redis's from there
}

func newSubscriberConn(c net.Conn, s *Subscriber) *subscriberConn {
	return &subscriberConn{Conn: c, sub: s, buf: make([]byte, readBuffer)}
}

// Read returns what is not a message for a user.
func (c *subscriberConn) Read(p []byte) (int, error) {
	for c.r >= c.end {
		if c.deal(); c.r < c.end {
			break
		}
		c.sub.idle()
		c.room()
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

// deal hands on messages until something else comes, or the rest is not all there.
func (c *subscriberConn) deal() {
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

// room makes room behind what has come.
func (c *subscriberConn) room() {
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

// messageHead is how a message that comes by channelPattern begins.
var messageHead = []byte("*4\r\n$8\r\npmessage\r\n$" + strconv.Itoa(len(channelPattern)) + "\r\n" + channelPattern + "\r\n")

// cutMessage returns the channel and payload of such a message at the beginning of
// b, and its length; 0 if something else is there, -1 if its end has not come.
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

// bulk reads a bulk string, "$1\r\na\r\n" or, for null, "$-1\r\n"; size is how long
// all of that is, -1 if its end has not come, 0 if it is something else.
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

// replyLen is the length of the reply of RESP2 that b begins with
// (https://redis.io/docs/latest/develop/reference/protocol-spec/); 0 if its end
// has not come, -1 if it is none.
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

// number reads a line of a type and a length, as "$12\r\n", or "$-1\r\n"; line is
// how long that is, -1 if its end has not come, 0 if it is something else.
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
