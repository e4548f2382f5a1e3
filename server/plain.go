//go:build unix

package server

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"herald/internal/transport"
)

// plainConn is a connection with a goroutine that reads. It writes without
// waiting, one system call a write; a goroutine for writing exists only while a
// socket's queue waits for its peer.
type plainConn struct {
	// Static after construction.
	s    *Server
	conn net.Conn
	raw  syscall.RawConn

	// Guarded by the socket's mutex, under which every Write is called.
	p       []byte
	n       int
	err     error
	writeFn func(fd uintptr) bool // c.write, bound once
}

// readBuffer is how much a plainConn reads at once, in bytes: what clients send is small.
const readBuffer = 1024

// adoptPlain duplicates the connection, so that its owner may close a. patience is as
// with loops.adopt.
func (s *Server) adoptPlain(a *transport.Accepted, patience time.Duration) (peerConn, error) {
	tcp, err := a.TCP()
	if err != nil {
		return nil, err
	}
	f, err := tcp.File()
	if err != nil {
		return nil, err
	}
	conn, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		return nil, err
	}
	c := &plainConn{s: s, conn: conn}
	c.writeFn = c.write
	if c.raw, err = conn.(*net.TCPConn).SyscallConn(); err != nil {
		_ = conn.Close()
		return nil, err
	}
	_ = c.raw.Control(func(fd uintptr) { setUserTimeout(int(fd), patience) })
	return c, nil
}

func (c *plainConn) start(r receiver) error {
	c.s.streams.run(func() { c.serve(r) })
	return nil
}

func (c *plainConn) abandon() { _ = c.conn.Close() }

func (c *plainConn) serve(r receiver) {
	defer func() {
		if v := recover(); v != nil {
			c.s.panicked("stream", v)
		}
		r.end()
		_ = c.conn.Close()
	}()
	var buf [readBuffer]byte
	for {
		n, err := c.conn.Read(buf[:])
		if n > 0 && !r.receive(buf[:n]) || err != nil {
			return
		}
	}
}

// Write implements hub.Transport.
func (c *plainConn) Write(p []byte) (int, error) {
	c.p = p
	err := c.raw.Write(c.writeFn)
	c.p = nil
	if err != nil {
		return 0, err
	}
	return c.n, c.err
}

func (c *plainConn) write(fd uintptr) bool {
	c.n, c.err = writeNow(int(fd), c.p)
	return true // never wait here
}

// writeNow is one write to a descriptor that doesn't block: of what it takes now,
// perhaps nothing.
func writeNow(fd int, p []byte) (int, error) {
	n, err := transport.Write(fd, p)
	if err == unix.EAGAIN {
		err = nil
	}
	return n, err
}

// Drain implements hub.Transport. step has to write inside of RawConn.Write:
// the poller tells only of changes, and one that came between a write that fell
// short and the wait would never be heard of. For as long as this waits it holds
// the descriptor's write lock, so step writes directly.
func (c *plainConn) Drain(step func(write func([]byte) (int, error)) bool) {
	go func() {
		err := c.raw.Write(func(fd uintptr) bool {
			return step(func(p []byte) (int, error) { return writeNow(int(fd), p) })
		})
		if err != nil {
			step(func([]byte) (int, error) { return 0, err })
		}
	}()
}

// Close implements hub.Transport: it shuts the connection down both ways, which
// wakes its reader, and the reader closes it. net.Conn's Close would wait here
// for every call that uses the descriptor, Drain's among them, which may be
// waiting for the lock that our caller holds.
func (c *plainConn) Close() {
	_ = c.raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) })
}
