package transport

import (
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rawConn is a TCP connection that is read and written with raw system calls. They never
// block, but around an ordinary call Go prepares for one that does. If the kernel runs
// another process meanwhile, often the one that the write woke, Go hands the processor
// to another thread, which must be woken too.
//
// Unlike with other connections, only one goroutine may read at a time, and only one
// may write.
type rawConn struct {
	*net.TCPConn
	raw         syscall.RawConn
	read, write transfer
}

func newRawConn(c *net.TCPConn) (*rawConn, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	r := &rawConn{TCPConn: c, raw: raw}
	r.read.step, r.write.step = r.read.some, r.write.all
	return r, nil
}

// transfer is a read or write under way.
type transfer struct {
	step func(fd uintptr) (done bool) // some or all, bound once
	p    []byte
	n    int
	err  error
}

// Read implements net.Conn.
func (c *rawConn) Read(p []byte) (int, error) {
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
func (c *rawConn) Write(p []byte) (int, error) {
	t := &c.write
	t.begin(p)
	return t.end(c.raw.Write(t.step), "write")
}

func (t *transfer) begin(p []byte) { t.p, t.n, t.err = p, 0, nil }

// end returns the result; waited is the error of waiting for the descriptor, if any.
func (t *transfer) end(waited error, call string) (int, error) {
	t.p = nil
	if waited == nil && t.err != nil {
		waited = &net.OpError{Op: call, Net: "tcp", Err: os.NewSyscallError(call, t.err)}
	}
	return t.n, waited
}

// some reads what has arrived.
func (t *transfer) some(fd uintptr) bool {
	t.n, t.err = rawRead(int(fd), t.p)
	return t.err != unix.EAGAIN
}

// all writes until everything is written.
func (t *transfer) all(fd uintptr) bool {
	for t.n < len(t.p) {
		n, err := rawWrite(int(fd), t.p[t.n:])
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

// PoolConn is a TCP connection of go-redis's pool. Before each use the pool checks that
// nothing has arrived on it and that the peer has not closed it; here that check costs
// one raw system call.
type PoolConn struct {
	*rawConn
	quiet probe
}

// NewPoolConn returns c as a PoolConn.
func NewPoolConn(c *net.TCPConn) (*PoolConn, error) {
	inner, err := newRawConn(c)
	if err != nil {
		return nil, err
	}
	p := &PoolConn{rawConn: inner}
	p.quiet.RawConn, p.quiet.look = inner.raw, p.quiet.peek
	return p, nil
}

// SyscallConn implements syscall.Conn, for the pool's check only.
func (c *PoolConn) SyscallConn() (syscall.RawConn, error) { return &c.quiet, nil }

// probe is a syscall.RawConn that skips the pool's own read if nothing has arrived. That
// read is an ordinary system call, which wakes the runtime's monitor thread; at 1,000
// publishes a second it cost a fifth of a node's processor time.
type probe struct {
	syscall.RawConn
	look func(fd uintptr) bool // peek, bound once
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
