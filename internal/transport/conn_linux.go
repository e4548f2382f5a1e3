// Package transport makes connections cheaper where other processes compete for the
// processors: Redis and proxies on the same machine, say.
package transport

import (
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Conn is a TCP connection that is read and written with raw system calls. These
// never wait, but Go cannot know: around each it prepares for one that does, and
// where the kernel runs somebody else meanwhile (whom the write has woken, often)
// it hands the processor to another thread, which has to be woken, too.
//
// Unlike with other connections, only one goroutine may read at a time, and only
// one write.
type Conn struct {
	*net.TCPConn
	raw         syscall.RawConn
	read, write transfer
}

// New returns c as a Conn.
func New(c *net.TCPConn) (*Conn, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	r := &Conn{TCPConn: c, raw: raw}
	r.read.step, r.write.step = r.read.some, r.write.all
	return r, nil
}

// transfer is a read or write under way.
type transfer struct {
	step func(fd uintptr) (done bool) // some or all, made once
	p    []byte
	n    int
	err  error
}

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	t := &c.read
	t.begin(p)
	n, err := t.end(c.raw.Read(t.step), "read")
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (int, error) {
	t := &c.write
	t.begin(p)
	return t.end(c.raw.Write(t.step), "write")
}

func (t *transfer) begin(p []byte) { t.p, t.n, t.err = p, 0, nil }

// end returns what came of it; waited is why the waiting failed, if it has.
func (t *transfer) end(waited error, call string) (int, error) {
	t.p = nil
	if waited == nil && t.err != nil {
		waited = &net.OpError{Op: call, Net: "tcp", Err: os.NewSyscallError(call, t.err)}
	}
	return t.n, waited
}

// some reads what there is.
func (t *transfer) some(fd uintptr) bool {
	t.n, t.err = Read(int(fd), t.p)
	return t.err != unix.EAGAIN
}

// all writes until there is nothing left to be written.
func (t *transfer) all(fd uintptr) bool {
	for t.n < len(t.p) {
		n, err := Write(int(fd), t.p[t.n:])
		if err == unix.EAGAIN {
			return false
		}
		if t.err = err; err != nil {
			return true
		}
		t.n += n
	}
	return true
}

// PoolConn is a Conn of a pool that makes sure, before each use, that nothing has
// come on it and its peer has not closed it, as go-redis does.
type PoolConn struct {
	*Conn
	quiet probe
}

// NewPoolConn returns c as a PoolConn.
func NewPoolConn(c *net.TCPConn) (*PoolConn, error) {
	inner, err := New(c)
	if err != nil {
		return nil, err
	}
	p := &PoolConn{Conn: inner}
	p.quiet.RawConn, p.quiet.look = inner.raw, p.quiet.peek
	return p, nil
}

// SyscallConn implements syscall.Conn, for such a check only.
func (c *PoolConn) SyscallConn() (syscall.RawConn, error) { return &c.quiet, nil }

// probe is a syscall.RawConn that has nothing read where there is nothing: f would
// only find that out again, by a system call that wakes the runtime's monitor
// from its sleep. At 1,000 publishes a second that took a fifth of all that a node
// computed.
type probe struct {
	syscall.RawConn
	look func(fd uintptr) bool // peek, made once
	err  error                 // what peek has found
}

// Read implements syscall.RawConn, but doesn't wait.
func (p *probe) Read(f func(fd uintptr) bool) error {
	if err := p.RawConn.Read(p.look); err != nil || p.err == unix.EAGAIN {
		return err
	}
	return p.RawConn.Read(f)
}

func (p *probe) peek(fd uintptr) bool {
	var b [1]byte
	_, p.err = call(unix.SYS_RECVFROM, int(fd), unsafe.Pointer(&b[0]), 1, unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return true
}
