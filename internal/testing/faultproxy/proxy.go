//go:build unix

// Package faultproxy is a TCP proxy for tests that want a bad network: it
// relays connections to a target and, told so while they are open, refuses,
// cuts, delays or swallows them, in one direction or both.
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

// Direction says which of a connection's two halves a fault strikes.
type Direction uint8

// The directions, seen from whoever connects to the proxy.
const (
	ToServer Direction = 1 << iota
	ToClient
	Both = ToServer | ToClient
)

// Proxy relays connections. It passes everything until it is told otherwise;
// its methods may be called by several goroutines at once.
type Proxy struct {
	Addr string // host:port on 127.0.0.1; static, and nobody else's even while refused

	t        testing.TB
	reserved int // socket that keeps the port

	mu       sync.Mutex
	target   string        // guarded by mu: where further connections lead
	listener net.Listener  // guarded by mu; nil while connections are refused
	links    []*link       // guarded by mu: open connections, oldest first
	dark     Direction     // guarded by mu: what doesn't arrive
	slow     slowness      // guarded by mu: of what is read from now on
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

// Close cuts every connection and ends the proxy. It may be called again.
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

// SetTarget makes further connections lead elsewhere; open ones stay.
func (p *Proxy) SetTarget(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

// Pass ends whatever the proxy was told to do. What a blackhole held back goes
// on its way, as TCP sends again what was not acknowledged; stranded
// connections stay as they are.
func (p *Proxy) Pass() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drops = drops{}
	p.setLocked(0, slowness{})
}

// Refuse answers further connections with RST, as a machine does on which
// nothing listens, and cuts the open ones.
func (p *Proxy) Refuse() {
	p.mu.Lock()
	p.stopListeningLocked()
	p.mu.Unlock()
	p.Cut()
}

// Blackhole lets nothing arrive in that direction, neither bytes nor the end of
// a connection, until Pass. Connections can be made, because the kernel makes
// them, but reach nobody. A piece that was already being written may still arrive.
func (p *Proxy) Blackhole(d Direction) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.setLocked(d, slowness{})
}

// slowness is how much later a piece arrives.
type slowness struct{ least, most time.Duration }

// Delay makes each piece arrive later by a time of its own between least and
// most, in both directions; within one connection nothing overtakes.
func (p *Proxy) Delay(least, most time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.setLocked(0, slowness{least, most})
}

// due is when a piece that has just been read may be passed on.
func (p *Proxy) due() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	late := p.slow.least
	if spread := p.slow.most - p.slow.least; spread > 0 {
		late += time.Duration(p.chance.Int64N(int64(spread)))
	}
	return time.Now().Add(late)
}

// setLocked changes the mode and sees to it that the proxy listens.
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

// Cut ends the open connections with RST, to both sides, and returns how many
// there were. Further ones pass.
func (p *Proxy) Cut() int { return p.CutSome(func() bool { return true }) }

// CutSome is Cut for those that pick, asked for each, wants.
func (p *Proxy) CutSome(pick func() bool) int {
	return len(p.each(pick, (*link).cut))
}

// Strand makes the open connections lead nowhere for ever, in both directions
// and without telling anybody, as a firewall does that has forgotten them. It
// returns how many there were. Further ones pass.
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

// Connections is how many connections are open.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

// drops are the answers that are to be lost.
type drops struct {
	left    int
	pattern string
}

// DropReplies loses the next n pieces from the server that hold the pattern and
// cuts their connections: the server has done what it was asked, and its client
// will not hear of it. A pattern that two reads have torn apart is not found.
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
