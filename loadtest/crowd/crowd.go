//go:build linux

// Package crowd is many clients in one process, on a few event loops: sockets
// that receive, callers that publish over HTTP, a pipe that publishes through
// Redis. It is as cheap as it can be made, since it shares the machine with
// what it measures.
package crowd

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

// Speaker is what a crowd must know of a server's dialect (target.Dialect).
type Speaker interface {
	Upgrade(host string, user int, since int64) []byte
	Greets() bool
	Frame(payload []byte) (answer []byte, open bool)
}

// Options are a crowd's choices; the zero value is good.
type Options struct {
	// Delivered is called for each notification that has a stamp, on a loop's
	// thread. Default: nobody is told.
	Delivered func(s *Socket, stamp wire.Stamp)
	// Ids makes each socket remember the newest id it has seen, and count what
	// did not follow the one before. Default: frames are searched for the stamp only.
	Ids bool
	// ReceiveBuffer of each socket in the kernel, in bytes. Default: the system's.
	ReceiveBuffer int
}

// Crowd is a number of WebSocket clients of one server.
type Crowd struct {
	// Static after construction.
	speaker Speaker
	addr    string
	peer    unix.SockaddrInet4
	local   bool // the server is on the loopback network: each socket has an address of its own
	o       Options
	shards  []*shard

	sequential  atomic.Int64 // by loop.Now: what is due from then on must come in the order it was due; 0: it need not
	from, until atomic.Int64 // by loop.Now: latencies of what was due in between are recorded
}

// New returns a crowd without sockets. The loops must outlive it.
func New(addr string, speaker Speaker, loops []*loop.Loop, o Options) (*Crowd, error) {
	peer, err := sockaddr(addr)
	if err != nil {
		return nil, err
	}
	c := &Crowd{speaker: speaker, addr: addr, peer: peer, local: peer.Addr[0] == 127, o: o}
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
		return unix.SockaddrInet4{}, errors.New(addr + " is no IPv4 address")
	}
	return unix.SockaddrInet4{Port: a.Port, Addr: [4]byte(ip)}, nil
}

// Record makes latencies count from now on, and forgets those before; the
// function it returns ends that and returns them.
func (c *Crowd) Record() (stop func() *measure.Histogram) {
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

// Sequential says that from now on one connection publishes, so that what comes
// on a socket out of the order in which it was due is disorder; the function it
// returns ends that.
func (c *Crowd) Sequential() (stop func()) {
	c.sequential.Store(int64(loop.Now()))
	return func() { c.sequential.Store(0) }
}

// Received is how many notifications with a stamp have come so far, duplicates
// left out.
func (c *Crowd) Received() (n int64) {
	for _, s := range c.shards {
		n += s.received.Load()
	}
	return n
}

// Open is how many sockets are open.
func (c *Crowd) Open() (n int64) {
	for _, s := range c.shards {
		n += s.open.Load()
	}
	return n
}

// AwaitReceived waits until n notifications with a stamp have come, or nothing
// more has for that long. It returns how many have.
func (c *Crowd) AwaitReceived(ctx context.Context, n int64, patience time.Duration) int64 {
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

// Endings are why sockets ended without being told to, and how often: a close
// code, 1006 where the connection ended without one (RFC 6455, 7.1.5).
func (c *Crowd) Endings() map[int]int {
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

// Duplicates counts notifications that had come before on the same socket, as
// one of its latest.
func (c *Crowd) Duplicates() (n int64) {
	for _, s := range c.shards {
		n += s.duplicates.Load()
	}
	return n
}

// Disorder counts notifications that did not follow the one before on their
// socket: by their ids, gap frames included, with Options.Ids; by when they were
// due while Sequential.
func (c *Crowd) Disorder() (n int64) {
	for _, s := range c.shards {
		n += s.disorder.Load()
	}
	return n
}

// Each runs f for every open socket, on the loops' threads, and waits.
func (c *Crowd) Each(f func(*Socket)) {
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

// Some runs f for up to n open sockets, any of them, on the loops' threads, one
// after another, and waits.
func (c *Crowd) Some(n int, f func(*Socket)) {
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

// LastIDs is where users who have, or had, a socket here would resume. It needs
// Options.Ids, and that each has had one socket at a time.
func (c *Crowd) LastIDs() map[int]int64 {
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

// Say sends a text on every open socket.
func (c *Crowd) Say(text []byte) {
	c.Each(func(s *Socket) { s.Say(text) })
}

// Close closes every socket, as a client that goes away does.
func (c *Crowd) Close() {
	for _, s := range c.shards {
		s.loop.Call(s.closeAll)
	}
}
