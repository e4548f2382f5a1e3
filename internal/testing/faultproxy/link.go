//go:build unix

package faultproxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// link is one connection through the proxy.
type link struct {
	// Static after construction.
	p      *Proxy
	client *net.TCPConn
	done   chan struct{} // closed when the link is cut

	stranded bool // guarded by p.mu

	mu     sync.Mutex
	server *net.TCPConn // guarded by mu; nil until the target has answered
	isCut  bool         // guarded by mu
}

// dialTimeout bounds how long the target may take to accept.
const dialTimeout = 5 * time.Second

// run relays until both halves have ended or the link is cut.
func (l *link) run() {
	defer l.p.remove(l)
	defer func() { _ = l.client.Close() }()
	if !l.awaitOpen(ToServer) {
		return
	}
	server, err := l.dial()
	if err != nil {
		l.cut()
		return
	}
	defer func() { _ = server.Close() }()
	var halves sync.WaitGroup
	halves.Go(func() { l.relay(ToServer, l.client, server) })
	halves.Go(func() { l.relay(ToClient, server, l.client) })
	halves.Wait()
}

func (l *link) dial() (*net.TCPConn, error) {
	l.p.mu.Lock()
	target := l.p.target
	l.p.mu.Unlock()
	conn, err := net.DialTimeout("tcp", target, dialTimeout)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.server = conn.(*net.TCPConn)
	if l.isCut {
		reset(l.server)
		return nil, net.ErrClosed
	}
	return l.server, nil
}

// piece is the result of one read.
type piece struct {
	bytes []byte
	due   time.Time // when it may be written
	err   error     // the half's end; nothing follows
}

const (
	pieceBytes = 32 << 10
	// pieces bounds how many reads a half buffers before it stops reading from the sender.
	pieces = 64
)

// relay moves the bytes of one half until it closes. Its reader and its writer are two
// goroutines, so that a delay does not limit throughput.
func (l *link) relay(d Direction, from, to *net.TCPConn) {
	queue := make(chan piece, pieces)
	var reader sync.WaitGroup
	reader.Go(func() { l.read(from, queue) })
	defer reader.Wait()
	for {
		select {
		case next := <-queue:
			if !l.awaitDue(next.due) || !l.awaitOpen(d) || !l.write(d, to, next) {
				return
			}
		case <-l.done:
			return
		}
	}
}

func (l *link) read(from *net.TCPConn, queue chan<- piece) {
	for {
		buf := make([]byte, pieceBytes)
		n, err := from.Read(buf)
		if !l.push(queue, piece{bytes: buf[:n], due: l.p.due(), err: err}) || err != nil {
			return
		}
	}
}

func (l *link) push(queue chan<- piece, next piece) bool {
	select {
	case queue <- next:
		return true
	case <-l.done:
		return false
	}
}

// write forwards a piece, including the end of the half; it returns false after the last.
func (l *link) write(d Direction, to *net.TCPConn, next piece) bool {
	if d == ToClient && l.dropped(next.bytes) {
		l.cut()
		return false
	}
	if _, err := to.Write(next.bytes); err != nil {
		l.cut()
		return false
	}
	switch {
	case next.err == nil:
		return true
	case errors.Is(next.err, io.EOF):
		_ = to.CloseWrite()
	default:
		l.cut() // a reset is passed on as one
	}
	return false
}

func (l *link) dropped(reply []byte) bool {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	d := &l.p.drops
	if d.left == 0 || len(reply) == 0 || !bytes.Contains(reply, []byte(d.pattern)) {
		return false
	}
	d.left--
	return true
}

func (l *link) awaitDue(due time.Time) bool {
	wait := time.Until(due)
	if wait <= 0 {
		return true
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-l.done:
		return false
	}
}

// awaitOpen waits while that direction is blackholed; it returns false if the link is cut.
func (l *link) awaitOpen(d Direction) bool {
	for {
		l.p.mu.Lock()
		isOpen, changed := !l.stranded && l.p.dark&d == 0, l.p.changed
		l.p.mu.Unlock()
		if isOpen {
			return true
		}
		select {
		case <-changed:
		case <-l.done:
			return false
		}
	}
}

func (l *link) strand() {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	l.stranded = true
}

// cut closes both connections with RST. Only the first call has an effect.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isCut {
		return
	}
	l.isCut = true
	close(l.done)
	reset(l.client)
	if l.server != nil {
		reset(l.server)
	}
}

// reset closes with RST: without lingering, unsent bytes are dropped (RFC 9293, 3.10.4,
// ABORT).
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}
