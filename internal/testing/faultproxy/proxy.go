//go:build unix

// Package faultproxy is a TCP proxy that injects network faults into tests. It relays
// connections to a target and can refuse, cut, delay or blackhole them while they are
// open, in one direction or both.
package faultproxy

import (
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"
)

// Direction selects the halves of a connection that a fault affects.
type Direction uint8

// The directions, seen from the client of the proxy.
const (
	ToServer Direction = 1 << iota
	ToClient
	Both = ToServer | ToClient
)

// Proxy relays connections, unchanged until a method injects a fault. It is safe for
// concurrent use.
type Proxy struct {
	Addr string // host:port on 127.0.0.1; static and reserved, also while connections are refused

	t        testing.TB
	reserved int // socket that keeps the port

	mu       sync.Mutex
	target   string        // guarded by mu: of new connections
	listener net.Listener  // guarded by mu; nil while connections are refused
	links    []*link       // guarded by mu: open connections, oldest first
	dark     Direction     // guarded by mu: blackholed halves
	slow     slowness      // guarded by mu: delay of later reads
	changed  chan struct{} // guarded by mu: closed, and replaced, when dark has changed
	chance   *rand.Rand    // guarded by mu: the same in every run
	drops    drops         // guarded by mu
	ended    bool          // guarded by mu: Close was called

	running sync.WaitGroup // accept loops and links
}

// Start returns a proxy in front of target, closed with the test.
func Start(t testing.TB, target string) *Proxy {
	t.Helper()
	fd, port, err := reserve()
	if err != nil {
		t.Fatalf("reserve a port: %v", err)
	}
	p := &Proxy{
		Addr: fmt.Sprintf("127.0.0.1:%d", port), t: t, reserved: fd,
		target: target, changed: make(chan struct{}), chance: rand.New(rand.NewPCG(1, 2)),
	}
	t.Cleanup(p.Close)
	p.Pass()
	return p
}

// Close cuts every connection and stops the proxy. It may be called more than once.
func (p *Proxy) Close() {
	p.mu.Lock()
	first := !p.ended
	p.ended = true
	p.stopListeningLocked()
	links := slices.Clone(p.links)
	p.mu.Unlock()
	for _, l := range links {
		l.cut()
	}
	p.running.Wait()
	if first {
		release(p.reserved)
	}
}

// SetTarget changes the target of new connections; open ones stay.
func (p *Proxy) SetTarget(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

// Pass ends all faults. Bytes that a blackhole held back are forwarded, as TCP
// retransmits. Stranded connections stay stranded.
func (p *Proxy) Pass() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drops = drops{}
	p.setLocked(0, slowness{})
}

// Refuse answers new connections with RST, as if no process listened, and cuts the open
// ones.
func (p *Proxy) Refuse() {
	p.mu.Lock()
	p.stopListeningLocked()
	p.mu.Unlock()
	p.Cut()
}

// Blackhole holds back everything in that direction, bytes and closes, until Pass. The
// kernel still accepts connections, but they do not reach the target. A piece that is
// being written may still arrive.
func (p *Proxy) Blackhole(d Direction) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.setLocked(d, slowness{})
}

// slowness is the delay of each piece.
type slowness struct{ least, most time.Duration }

// Delay delays each piece by a random time between least and most, in both directions. It
// keeps the order within a connection.
func (p *Proxy) Delay(least, most time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.setLocked(0, slowness{least, most})
}

// due returns when a piece that has just been read may be forwarded.
func (p *Proxy) due() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	late := p.slow.least
	if spread := p.slow.most - p.slow.least; spread > 0 {
		late += time.Duration(p.chance.Int64N(int64(spread)))
	}
	return time.Now().Add(late)
}

// setLocked changes the mode and makes the proxy listen.
func (p *Proxy) setLocked(dark Direction, slow slowness) {
	p.t.Helper()
	if p.dark != dark {
		close(p.changed)
		p.changed = make(chan struct{})
	}
	p.dark, p.slow = dark, slow
	if p.listener != nil || p.ended {
		return
	}
	l, err := listen(p.Addr)
	if err != nil {
		p.t.Errorf("listen on %s again: %v", p.Addr, err)
		return
	}
	p.listener = l
	p.running.Go(func() { p.accept(l) })
}

func (p *Proxy) stopListeningLocked() {
	if p.listener != nil {
		_ = p.listener.Close()
		p.listener = nil
	}
}

// Cut closes the open connections with RST to both sides and returns their number. New
// ones pass.
func (p *Proxy) Cut() int { return p.CutSome(func() bool { return true }) }

// CutSome is Cut for the connections that pick selects.
func (p *Proxy) CutSome(pick func() bool) int {
	return len(p.each(pick, (*link).cut))
}

// Strand blackholes the open connections permanently, in both directions and without RST,
// as a firewall that has lost their state. It returns their number. New ones pass.
func (p *Proxy) Strand() int {
	return len(p.each(func() bool { return true }, (*link).strand))
}

func (p *Proxy) each(pick func() bool, do func(*link)) []*link {
	p.mu.Lock()
	picked := slices.DeleteFunc(slices.Clone(p.links), func(*link) bool { return !pick() })
	p.mu.Unlock()
	for _, l := range picked {
		do(l)
	}
	return picked
}

// Connections returns the number of open connections.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

// drops are the replies to lose.
type drops struct {
	left    int
	pattern string
}

// DropReplies loses the next n pieces from the server that contain the pattern, and cuts
// their connections: the server has executed the request, and the client does not get the
// reply. It does not find a pattern that spans two reads.
func (p *Proxy) DropReplies(n int, pattern string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drops = drops{left: n, pattern: pattern}
}

func (p *Proxy) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return // closed: nothing else ends a listener on the loopback interface
		}
		p.add(conn.(*net.TCPConn))
	}
}

func (p *Proxy) add(client *net.TCPConn) {
	l := &link{p: p, client: client, done: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended || p.listener == nil { // accepted just before
		reset(client)
		return
	}
	p.links = append(p.links, l)
	p.running.Go(l.run)
}

func (p *Proxy) remove(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.links = slices.DeleteFunc(p.links, func(other *link) bool { return other == l })
}
