//go:build linux

// Package clients runs thousands of clients in one process on a few event loops:
// WebSockets that receive, a Caller that publishes over HTTP and a RedisPublisher.
// It is kept as cheap as possible, because it shares the machine with the server.
package clients

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"herald/loadtest/loop"
	"herald/loadtest/measure"
	"herald/loadtest/wire"
)

// Speaker is the part of a server's dialect that sockets need (target.Dialect).
type Speaker interface {
	Upgrade(host string, user int, since int64) []byte
	Greets() bool
	Frame(payload []byte) (answer []byte, open bool)
}

// Options of a Set. The zero value works.
type Options struct {
	// Delivered is called on a loop's thread for each stamped notification. Optional.
	Delivered func(s *Socket, stamp wire.Stamp)
	// Ids makes each socket track the newest notification id and count
	// notifications out of order. Default: frames are only searched for the stamp.
	Ids bool
	// ReceiveBuffer is SO_RCVBUF of each socket in bytes. Default: the system's.
	ReceiveBuffer int
}

// Set is a set of WebSocket clients of one server.
type Set struct {
	// Static after construction.
	speaker Speaker
	addr    string
	peer    unix.SockaddrInet4
	local   bool // the server is on the loopback network: each socket gets its own source address
	o       Options
	shards  []*shard

	sequential  atomic.Int64 // by loop.Now: messages due from then on must arrive in order; 0: any order
	from, until atomic.Int64 // by loop.Now: latencies of messages due in between are recorded
}

// New returns a set without sockets. The loops must outlive it.
func New(addr string, speaker Speaker, loops []*loop.Loop, o Options) (*Set, error) {
	peer, err := sockaddr(addr)
	if err != nil {
		return nil, err
	}
	c := &Set{speaker: speaker, addr: addr, peer: peer, local: peer.Addr[0] == 127, o: o}
	for _, l := range loops {
		c.shards = append(c.shards, newShard(c, l))
	}
	return c, nil
}

func sockaddr(addr string) (unix.SockaddrInet4, error) {
	a, err := net.ResolveTCPAddr("tcp4", addr)
	if err != nil {
		return unix.SockaddrInet4{}, err
	}
	ip := a.IP.To4()
	if ip == nil {
		return unix.SockaddrInet4{}, errors.New(addr + " is not an IPv4 address")
	}
	return unix.SockaddrInet4{Port: a.Port, Addr: [4]byte(ip)}, nil
}

// Record starts to record latencies, discarding earlier ones. stop returns those
// of messages due before it was called.
func (c *Set) Record() (stop func() *measure.Histogram) {
	for _, s := range c.shards {
		s.loop.Call(s.latency.Reset)
	}
	c.until.Store(int64(time.Hour * 24 * 365))
	c.from.Store(int64(loop.Now()))
	return func() *measure.Histogram {
		c.until.Store(int64(loop.Now()))
		sum := measure.NewHistogram()
		for _, s := range c.shards {
			s.loop.Call(func() { sum.Merge(s.latency) })
		}
		return sum
	}
}

// Sequential declares that one connection publishes until stop is called: a
// message that arrives out of the order in which they were due counts as disorder.
func (c *Set) Sequential() (stop func()) {
	c.sequential.Store(int64(loop.Now()))
	return func() { c.sequential.Store(0) }
}

// Received returns the number of stamped notifications so far, without duplicates.
func (c *Set) Received() (n int64) {
	for _, s := range c.shards {
		n += s.received.Load()
	}
	return n
}

// Open returns the number of open sockets.
func (c *Set) Open() (n int64) {
	for _, s := range c.shards {
		n += s.open.Load()
	}
	return n
}

// AwaitReceived waits until n stamped notifications have arrived, or none has
// arrived for the duration of patience. It returns the number that has arrived.
func (c *Set) AwaitReceived(ctx context.Context, n int64, patience time.Duration) int64 {
	t := time.NewTicker(2 * time.Millisecond)
	defer t.Stop()
	last, since := c.Received(), time.Now()
	for last < n {
		select {
		case <-ctx.Done():
			return last
		case <-t.C:
		}
		if now := c.Received(); now > last {
			last, since = now, time.Now()
		} else if time.Since(since) > patience {
			break
		}
	}
	return last
}

// CloseCodes counts the sockets that the server closed, by close code: 1006 if the
// connection ended without one (RFC 6455, 7.1.5).
func (c *Set) CloseCodes() map[int]int {
	sum := map[int]int{}
	for _, s := range c.shards {
		s.loop.Call(func() {
			for code, n := range s.endings {
				sum[code] += n
			}
		})
	}
	return sum
}

// Duplicates counts notifications that repeat one of the latest on their socket.
func (c *Set) Duplicates() (n int64) {
	for _, s := range c.shards {
		n += s.duplicates.Load()
	}
	return n
}

// Disorder counts notifications that arrived out of order on their socket. With
// Options.Ids that is by id, and gap frames count too; after Sequential it is by
// the time they were due.
func (c *Set) Disorder() (n int64) {
	for _, s := range c.shards {
		n += s.disorder.Load()
	}
	return n
}

// Each runs f for every open socket on the loops' threads, and waits for it.
func (c *Set) Each(f func(*Socket)) {
	for _, s := range c.shards {
		s.loop.Call(func() {
			for _, sock := range s.sockets {
				if sock.phase == open {
					f(sock)
				}
			}
		})
	}
}

// Some runs f for up to n arbitrary open sockets on the loops' threads, and waits
// for it.
func (c *Set) Some(n int, f func(*Socket)) {
	for i, s := range c.shards {
		part := n*(i+1)/len(c.shards) - n*i/len(c.shards)
		s.loop.Call(func() {
			for _, sock := range s.sockets {
				if part == 0 {
					return
				}
				if sock.phase == open {
					part--
					f(sock)
				}
			}
		})
	}
}

// LastIDs returns the id after which each user's socket would resume. It needs
// Options.Ids and at most one socket per user at a time.
func (c *Set) LastIDs() map[int]int64 {
	all := map[int]int64{}
	for _, s := range c.shards {
		s.loop.Call(func() {
			for user, id := range s.left {
				all[user] = max(all[user], int64(id))
			}
			for _, sock := range s.sockets {
				if sock.phase == open {
					all[sock.User] = max(all[sock.User], int64(sock.Last))
				}
			}
		})
	}
	return all
}

// SendText sends a text message on every open socket.
func (c *Set) SendText(text []byte) {
	c.Each(func(s *Socket) { s.SendText(text) })
}

// Close closes every socket without a close frame.
func (c *Set) Close() {
	for _, s := range c.shards {
		s.loop.Call(s.closeAll)
	}
}
