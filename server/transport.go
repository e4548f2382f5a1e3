//go:build unix

package server

import (
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// transport writes to a TCP connection without waiting, one system call a
// write. A goroutine exists only while a socket's queue waits for its peer.
type transport struct {
	conn net.Conn
	raw  syscall.RawConn

	// Guarded by the socket's mutex, under which every Write is called.
	p       []byte
	n       int
	err     error
	writeFn func(fd uintptr) bool // t.write, bound once
}

// sendBuffer bounds what the kernel holds for a peer that doesn't read, which
// would otherwise grow to megabytes.
const sendBuffer = 64 << 10

func newTransport(conn net.Conn) *transport {
	t := &transport{conn: conn}
	t.writeFn = t.write
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(sendBuffer)
		if t.raw, _ = tcp.SyscallConn(); t.raw != nil {
			setUserTimeout(t.raw)
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
	for {
		t.n, t.err = unix.Write(int(fd), t.p)
		switch {
		case errors.Is(t.err, unix.EINTR):
			continue
		case errors.Is(t.err, unix.EAGAIN):
			t.n, t.err = 0, nil
		}
		t.n = max(t.n, 0)
		return true // never wait here
	}
}

// AwaitWritable implements hub.Transport. RawConn.Write holds the descriptor's
// write lock while it waits; the hub writes nothing until flush is called.
func (t *transport) AwaitWritable(flush func()) {
	go func() {
		waited := false
		_ = t.raw.Write(func(uintptr) bool {
			defer func() { waited = true }()
			return waited
		})
		flush()
	}()
}

// Close implements hub.Transport.
func (t *transport) Close() { _ = t.conn.Close() }
