//go:build unix

package transport

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// goroutineConn is a connection with a goroutine that reads. It writes without
// waiting, one system call a write. A second goroutine exists only while a queue waits
// until the peer reads.
type goroutineConn struct {
	// Static after construction.
	conn     net.Conn
	raw      syscall.RawConn
	panicked func(v any)

	// Owned by the caller of Write, who calls it one at a time.
	p       []byte
	n       int
	err     error
	writeFn func(fd uintptr) bool // c.write, bound once
}

// readBuffer is how much a goroutineConn reads at once, in bytes: clients send little.
const readBuffer = 1024

// adoptGoroutine duplicates the descriptor, so that the caller may close a.
func (e *Engine) adoptGoroutine(a *accepted, unacked time.Duration) (Conn, error) {
	tcp, err := a.tcp()
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
	c := &goroutineConn{conn: conn, panicked: e.panicked}
	c.writeFn = c.write
	if c.raw, err = conn.(*net.TCPConn).SyscallConn(); err != nil {
		_ = conn.Close()
		return nil, err
	}
	_ = c.raw.Control(func(fd uintptr) { setUserTimeout(int(fd), unacked) })
	return c, nil
}

// Start implements Conn.
func (c *goroutineConn) Start(r Receiver) error {
	go c.serve(r)
	return nil
}

// Abandon implements Conn.
func (c *goroutineConn) Abandon() { _ = c.conn.Close() }

func (c *goroutineConn) serve(r Receiver) {
	defer func() {
		if v := recover(); v != nil {
			c.panicked(v)
		}
		r.End()
		_ = c.conn.Close()
	}()
	var buf [readBuffer]byte
	for {
		n, err := c.conn.Read(buf[:])
		if n > 0 && !r.Receive(buf[:n]) || err != nil {
			return
		}
	}
}

// Write implements Conn.
func (c *goroutineConn) Write(p []byte) (int, error) {
	c.p = p
	err := c.raw.Write(c.writeFn)
	c.p = nil
	if err != nil {
		return 0, err
	}
	return c.n, c.err
}

func (c *goroutineConn) write(fd uintptr) bool {
	c.n, c.err = writeNow(int(fd), c.p)
	return true // never wait here
}

// writeNow makes one write to a descriptor that does not block. It writes what the
// kernel takes now, perhaps nothing.
func writeNow(fd int, p []byte) (int, error) {
	n, err := rawWrite(fd, p)
	if err == unix.EAGAIN {
		err = nil
	}
	return n, err
}

// Drain implements Conn. step has to write inside RawConn.Write: Go's poller reports
// changes only, and would miss one between a short write and the wait. While Drain waits
// it holds the descriptor's write lock, so step writes to the descriptor directly.
func (c *goroutineConn) Drain(step func(write func([]byte) (int, error)) bool) {
	go func() {
		err := c.raw.Write(func(fd uintptr) bool {
			return step(func(p []byte) (int, error) { return writeNow(int(fd), p) })
		})
		if err != nil {
			step(func([]byte) (int, error) { return 0, err })
		}
	}()
}

// Close implements Conn. The shutdown wakes the reader, and the reader closes the
// connection. net.Conn's Close would wait for every call that uses the descriptor;
// among them is Drain, which may wait for a lock that the caller holds.
func (c *goroutineConn) Close() {
	_ = c.raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) })
}
