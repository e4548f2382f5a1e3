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

// Listen takes l over, and returns a listener whose connections are Accepted. They
// have the options that l passes on to them (tcp(7)). prepare is called with each
// that becomes an ordinary one, to which Go gives options of its own. Where l is not
// of TCP it is returned as it is.
func Listen(l net.Listener, prepare func(*net.TCPConn)) (net.Listener, error) {
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return l, nil
	}
	f, err := tcp.File() // accepting is nothing that the listener itself lets others wait for
	if err != nil {
		return nil, err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	_ = tcp.Close()
	return &listener{f, raw, tcp.Addr(), prepare}, nil
}

type listener struct {
	file    *os.File
	raw     syscall.RawConn // file's
	addr    net.Addr
	prepare func(*net.TCPConn)
}

// Close implements net.Listener.
func (l *listener) Close() error { return l.file.Close() }

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return l.addr }

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	a := &Accepted{prepare: l.prepare}
	var err error
	waited := l.raw.Read(func(fd uintptr) bool {
		var from syscall.Sockaddr
		for {
			a.fd, from, err = syscall.Accept4(int(fd), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
			if err != unix.EINTR && err != unix.ECONNABORTED { // aborted: it is gone already
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

// Accepted is a connection that Go's poller does not know of before it has to be
// waited for. A stream's request is there, most often, when it is accepted; it is
// answered, and the connection is taken away by Detach: six system calls less. One
// that is waited for becomes a Conn, and so does one that TCP asks for.
//
// As with a Conn, only one goroutine may read at a time, and only one write; any may
// set deadlines or close it meanwhile.
type Accepted struct {
	// Static.
	remote  *net.TCPAddr
	prepare func(*net.TCPConn)

	conn atomic.Pointer[Conn] // what it has become, once; nil: it is fd

	mu                sync.Mutex
	fd                int       // guarded by mu: below 0 if it is conn, detached or closed
	readBy, writtenBy time.Time // guarded by mu: deadlines, as long as it is fd
}

// Read implements net.Conn.
func (a *Accepted) Read(p []byte) (int, error) {
	for {
		if c := a.conn.Load(); c != nil {
			return c.Read(p)
		}
		n, err := a.try("read", p, &a.readBy, Read)
		if err == unix.EAGAIN {
			_, err = a.settle()
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
func (a *Accepted) Write(p []byte) (done int, _ error) {
	for {
		if c := a.conn.Load(); c != nil {
			n, err := c.Write(p[done:])
			return done + n, err
		}
		n, err := a.try("write", p[done:], &a.writtenBy, Write)
		done += n
		if err == unix.EAGAIN {
			_, err = a.settle()
		}
		if err != nil || done == len(p) {
			return done, err
		}
	}
}

// try makes one call that does not wait. EAGAIN says that the connection has to be
// waited for, or has become a Conn.
func (a *Accepted) try(op string, p []byte, by *time.Time, f func(int, []byte) (int, error)) (int, error) {
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

// settle makes it a Conn.
func (a *Accepted) settle() (*Conn, error) {
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
	c, err := New(tcp)
	if err != nil {
		_ = tcp.Close()
		return nil, err
	}
	a.prepare(tcp)
	_, _ = tcp.SetReadDeadline(a.readBy), tcp.SetWriteDeadline(a.writtenBy)
	a.conn.Store(c)
	return c, nil
}

// TCP returns it as an ordinary connection, which is closed with it.
func (a *Accepted) TCP() (*net.TCPConn, error) {
	c, err := a.settle()
	if err != nil {
		return nil, err
	}
	return c.TCPConn, nil
}

// Detach returns a descriptor that is the caller's, doesn't block and is in nobody's
// poller. Nobody must be reading or writing; the connection is to be closed
// then, which leaves the descriptor open.
func (a *Accepted) Detach() (fd int, err error) {
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
func (a *Accepted) Close() error {
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
func (a *Accepted) RemoteAddr() net.Addr { return a.remote }

// LocalAddr implements net.Conn.
func (a *Accepted) LocalAddr() net.Addr {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.conn.Load(); c != nil {
		return c.LocalAddr()
	}
	sa, _ := syscall.Getsockname(a.fd) // of a closed one: nothing
	return tcpAddr(sa)
}

// SetDeadline implements net.Conn.
func (a *Accepted) SetDeadline(t time.Time) error { return a.deadline(t, true, true) }

// SetReadDeadline implements net.Conn.
func (a *Accepted) SetReadDeadline(t time.Time) error { return a.deadline(t, true, false) }

// SetWriteDeadline implements net.Conn.
func (a *Accepted) SetWriteDeadline(t time.Time) error { return a.deadline(t, false, true) }

func (a *Accepted) deadline(t time.Time, read, write bool) (err error) {
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
