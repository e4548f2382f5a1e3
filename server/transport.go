//go:build unix

package server

import (
	"errors"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// transport writes to a TCP connection without waiting, one system call a
// write. A goroutine exists only while a socket's queue waits for its peer.
type transport struct {
	raw syscall.RawConn

	// Guarded by the socket's mutex, under which every Write is called.
	p       []byte
	n       int
	err     error
	writeFn func(fd uintptr) bool // t.write, bound once
}

// sendBuffer bounds what the kernel holds for a peer that doesn't read, which
// would otherwise grow to megabytes.
const sendBuffer = 64 << 10

// newTransport returns one for conn, which the kernel ends when what was sent has
// not been acknowledged for userTimeout, if that is set.
func newTransport(conn net.Conn, userTimeout time.Duration) *transport {
	t := &transport{}
	t.writeFn = t.write
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(sendBuffer)
		if t.raw, _ = tcp.SyscallConn(); t.raw != nil && userTimeout > 0 {
			setUserTimeout(t.raw, userTimeout)
		}
	}
	return t
}

// Write implements hub.Transport.
func (t *transport) Write(p []byte) (int, error) {
	if t.raw == nil {
		return 0, errors.New("not a TCP connection")
	}
	t.p = p
	err := t.raw.Write(t.writeFn)
	t.p = nil
	if err != nil {
		return 0, err
	}
	return t.n, t.err
}

func (t *transport) write(fd uintptr) bool {
	t.n, t.err = writeNow(fd, t.p)
	return true // never wait here
}

// writeNow is one write to a descriptor that doesn't block.
func writeNow(fd uintptr, p []byte) (int, error) {
	for {
		n, err := unix.Write(int(fd), p)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return 0, nil
		default:
			return max(n, 0), err
		}
	}
}

// Drain implements hub.Transport. step has to write inside of RawConn.Write:
// the poller tells only of changes, and one that came between a write that fell
// short and the wait would never be heard of. For as long as this waits it holds
// the descriptor's write lock, so step writes directly.
func (t *transport) Drain(step func(write func([]byte) (int, error)) bool) {
	go func() {
		err := t.raw.Write(func(fd uintptr) bool {
			return step(func(p []byte) (int, error) { return writeNow(fd, p) })
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
func (t *transport) Close() {
	if t.raw != nil {
		_ = t.raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) })
	}
}
