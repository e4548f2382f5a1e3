package transport

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Listen takes ownership of l and returns a listener whose connections Engine.Adopt
// takes. It sets the options that connections need: no delay, keep-alive, a send buffer
// of 64 KiB. A listener that is not of TCP is returned unchanged.
func Listen(l net.Listener) (net.Listener, error) {
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return l, nil
	}
	setListenerOptions(tcp)
	f, err := tcp.File() // a TCPListener's own descriptor cannot be polled by others
	if err != nil {
		return nil, err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	_ = tcp.Close()
	return &listener{f, raw, tcp.Addr()}, nil
}

type listener struct {
	file *os.File
	raw  syscall.RawConn // file's
	addr net.Addr
}

// Close implements net.Listener.
func (l *listener) Close() error { return l.file.Close() }

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return l.addr }

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	a := &accepted{}
	var err error
	waited := l.raw.Read(func(fd uintptr) bool {
		var from syscall.Sockaddr
		for {
			a.fd, from, err = syscall.Accept4(int(fd), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
			if err != unix.EINTR && err != unix.ECONNABORTED { // aborted: the peer is gone already
				break
			}
		}
		if err == nil {
			a.remote = tcpAddr(from)
		}
		return err != unix.EAGAIN
	})
	switch {
	case waited != nil:
		err = net.ErrClosed
	case err != nil:
		err = os.NewSyscallError("accept4", err)
	default:
		return a, nil
	}
	return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.addr, Err: err}
}

func tcpAddr(a syscall.Sockaddr) *net.TCPAddr {
	switch a := a.(type) {
	case *syscall.SockaddrInet4:
		return &net.TCPAddr{IP: a.Addr[:], Port: a.Port}
	case *syscall.SockaddrInet6:
		addr := &net.TCPAddr{IP: a.Addr[:], Port: a.Port}
		if a.ZoneId != 0 {
			if i, err := net.InterfaceByIndex(int(a.ZoneId)); err == nil {
				addr.Zone = i.Name
			}
		}
		return addr
	}
	return &net.TCPAddr{}
}

// accepted is a connection that Go's poller does not manage before it must wait.
// A stream's request has usually arrived when its connection is accepted: it is read and
// answered at once, and detach hands out the bare descriptor, six system calls cheaper.
// A connection that must wait becomes a rawConn, and so does one whose tcp is called.
//
// As with a rawConn, only one goroutine may read at a time, and only one may write. Any
// goroutine may set deadlines or close it meanwhile.
type accepted struct {
	remote *net.TCPAddr // static

	conn atomic.Pointer[rawConn] // set once, when Go's poller takes the connection; nil: use fd

	mu                sync.Mutex
	fd                int       // guarded by mu; below 0 once conn is set, or after detach or Close
	readBy, writtenBy time.Time // guarded by mu; deadlines while fd is used
}

// Read implements net.Conn.
func (a *accepted) Read(p []byte) (int, error) {
	for {
		if c := a.conn.Load(); c != nil {
			return c.Read(p)
		}
		n, err := a.try("read", p, &a.readBy, rawRead)
		if err == unix.EAGAIN {
			_, err = a.toRawConn()
			if err == nil {
				continue
			}
		}
		if n == 0 && err == nil && len(p) > 0 {
			err = io.EOF
		}
		return n, err
	}
}

// Write implements net.Conn.
func (a *accepted) Write(p []byte) (done int, _ error) {
	for {
		if c := a.conn.Load(); c != nil {
			n, err := c.Write(p[done:])
			return done + n, err
		}
		n, err := a.try("write", p[done:], &a.writtenBy, rawWrite)
		done += n
		if err == unix.EAGAIN {
			_, err = a.toRawConn()
		}
		if err != nil || done == len(p) {
			return done, err
		}
	}
}

// try makes one call that does not wait. It fails with EAGAIN if the connection must
// wait, or if Go's poller manages it already.
func (a *accepted) try(op string, p []byte, by *time.Time, f func(int, []byte) (int, error)) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.conn.Load() != nil {
		return 0, unix.EAGAIN
	}
	n, err := 0, net.ErrClosed
	if a.fd >= 0 {
		if err = os.ErrDeadlineExceeded; by.IsZero() || time.Now().Before(*by) {
			if n, err = f(a.fd, p); err == nil || err == unix.EAGAIN {
				return n, err
			}
			err = os.NewSyscallError(op, err)
		}
	}
	return n, &net.OpError{Op: op, Net: "tcp", Addr: a.remote, Err: err}
}

// toRawConn hands the connection to Go's poller.
func (a *accepted) toRawConn() (*rawConn, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.conn.Load(); c != nil {
		return c, nil
	}
	if a.fd < 0 {
		return nil, net.ErrClosed
	}
	f := os.NewFile(uintptr(a.fd), "accepted")
	a.fd = -1
	file, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		return nil, err
	}
	tcp := file.(*net.TCPConn)
	c, err := newRawConn(tcp)
	if err != nil {
		_ = tcp.Close()
		return nil, err
	}
	setOptions(tcp)
	_, _ = tcp.SetReadDeadline(a.readBy), tcp.SetWriteDeadline(a.writtenBy)
	a.conn.Store(c)
	return c, nil
}

// tcp returns the connection as Go's, which is closed together with a.
func (a *accepted) tcp() (*net.TCPConn, error) {
	c, err := a.toRawConn()
	if err != nil {
		return nil, err
	}
	return c.TCPConn, nil
}

// detach returns a descriptor that does not block, that no poller manages, and that
// the caller must close. There must be no concurrent read or write. The caller must also
// close a, which leaves the descriptor open.
func (a *accepted) detach() (fd int, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.conn.Load(); c != nil {
		if e := c.raw.Control(func(p uintptr) { fd, err = unix.FcntlInt(p, unix.F_DUPFD_CLOEXEC, 0) }); e != nil {
			return 0, e
		}
		return fd, err
	}
	if a.fd < 0 {
		return 0, net.ErrClosed
	}
	fd, a.fd = a.fd, -1
	return fd, nil
}

// Close implements net.Conn.
func (a *accepted) Close() error {
	a.mu.Lock()
	fd, c := a.fd, a.conn.Load()
	a.fd = -1
	a.mu.Unlock()
	switch {
	case c != nil:
		return c.Close()
	case fd < 0:
		return net.ErrClosed
	}
	return unix.Close(fd)
}

// RemoteAddr implements net.Conn.
func (a *accepted) RemoteAddr() net.Addr { return a.remote }

// LocalAddr implements net.Conn.
func (a *accepted) LocalAddr() net.Addr {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.conn.Load(); c != nil {
		return c.LocalAddr()
	}
	sa, _ := syscall.Getsockname(a.fd) // nil if it is closed
	return tcpAddr(sa)
}

// SetDeadline implements net.Conn.
func (a *accepted) SetDeadline(t time.Time) error { return a.deadline(t, true, true) }

// SetReadDeadline implements net.Conn.
func (a *accepted) SetReadDeadline(t time.Time) error { return a.deadline(t, true, false) }

// SetWriteDeadline implements net.Conn.
func (a *accepted) SetWriteDeadline(t time.Time) error { return a.deadline(t, false, true) }

func (a *accepted) deadline(t time.Time, read, write bool) (err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.conn.Load()
	if c == nil && a.fd < 0 {
		return net.ErrClosed
	}
	if read {
		a.readBy = t
	}
	if write {
		a.writtenBy = t
	}
	if c == nil {
		return nil
	}
	if read {
		err = c.SetReadDeadline(t)
	}
	if write {
		err = errors.Join(err, c.SetWriteDeadline(t))
	}
	return err
}
