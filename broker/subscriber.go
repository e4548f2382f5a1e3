package broker

import (
	"context"
	"net"

	"github.com/redis/go-redis/v9"
)

// Subscriber is the client that Listen subscribes with. It tells when everything
// that Redis has sent so far has been received, which go-redis doesn't: it reads
// from the connection only then.
type Subscriber struct {
	rdb  *redis.Client
	idle func() // called on Listen's goroutine, which alone reads
}

// readBuffer is how much is received at once, in bytes. go-redis reads 32 KiB from
// a subscription, whatever its Options.ReadBufferSize: a hundred messages.
const readBuffer = 1 << 20

// NewSubscriber returns a client by o, of which it keeps nothing, for one Listen.
// It must be closed.
func NewSubscriber(o *redis.Options) *Subscriber {
	s := &Subscriber{idle: func() {}}
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
type subscriberConn struct {
	net.Conn
	sub    *Subscriber
	buf    []byte
	unread []byte // the rest of what was read into buf
}

func newSubscriberConn(c net.Conn, s *Subscriber) *subscriberConn {
	return &subscriberConn{Conn: c, sub: s, buf: make([]byte, readBuffer)}
}

// Read is called when all that it has returned before has been received.
func (c *subscriberConn) Read(p []byte) (int, error) {
	if len(c.unread) == 0 {
		c.sub.idle()
		n, err := c.Conn.Read(c.buf)
		if err != nil {
			return 0, err
		}
		c.unread = c.buf[:n]
	}
	n := copy(p, c.unread)
	c.unread = c.unread[n:]
	return n, nil
}
