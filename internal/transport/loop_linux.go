package transport

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// loops are event loops. Each reads from any number of connections with one goroutine
// and one buffer.
//
// A loop owns the descriptors of its connections: only the loop closes one, after every
// other use has ended. All others shut a connection down, which the loop notices. A
// descriptor that was closed elsewhere could already belong to another client.
type loops struct {
	list []*loop
	next atomic.Uint32
	wg   sync.WaitGroup
}

type loop struct {
	// Static after construction.
	epfd     int
	file     *os.File        // epfd in Go's poller, which is a third cheaper than blocking in epoll_wait
	raw      syscall.RawConn // file's
	panicked func(v any)

	// Owned by run.
	buf []byte

	mu    sync.Mutex
	conns []*loopConn // guarded by mu; indexed by descriptor
}

const (
	// loopBuffer is how much a loop reads from a connection at once, in bytes.
	loopBuffer = 64 << 10
	// maxReads is how many full buffers a loop takes from one connection before it
	// serves the others.
	maxReads = 4
)

// newLoops starts a loop for each processor. panicked gets what a Receiver panicked
// with; a panic closes its own connection only.
func newLoops(panicked func(v any)) (*loops, error) {
	ls := &loops{}
	for range runtime.GOMAXPROCS(0) {
		l, err := newLoop(panicked)
		if err != nil {
			ls.stop()
			return nil, err
		}
		ls.list = append(ls.list, l)
		ls.wg.Go(l.run)
	}
	return ls, nil
}

func newLoop(panicked func(v any)) (*loop, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("event loop: %w", err)
	}
	if err := unix.SetNonblock(epfd, true); err != nil { // os.NewFile polls only descriptors that do not block
		_ = unix.Close(epfd)
		return nil, fmt.Errorf("event loop: %w", err)
	}
	l := &loop{epfd: epfd, file: os.NewFile(uintptr(epfd), "epoll"), panicked: panicked, buf: make([]byte, loopBuffer)}
	if l.raw, err = l.file.SyscallConn(); err != nil {
		_ = l.file.Close()
		return nil, fmt.Errorf("event loop: %w", err)
	}
	return l, nil
}

func (ls *loops) adopt(a *accepted, unacked time.Duration) (Conn, error) {
	fd, err := a.detach()
	if err != nil {
		return nil, err
	}
	setUserTimeout(fd, unacked)
	return &loopConn{loop: ls.list[ls.next.Add(1)%uint32(len(ls.list))], fd: fd}, nil
}

// stop stops the loops. Their connections must have ended before.
func (ls *loops) stop() {
	for _, l := range ls.list {
		_ = l.file.Close()
	}
	ls.wg.Wait()
}

func (l *loop) run() {
	var events [256]unix.EpollEvent
	for {
		n := 0
		err := l.raw.Read(func(uintptr) bool {
			n = l.ready(events[:])
			return n != 0
		})
		if err != nil {
			return // closed
		}
		for i := range events[:max(n, 0)] {
			l.serve(&events[i])
		}
	}
}

// ready returns how many events there are now; -1 if epoll fails.
func (l *loop) ready(events []unix.EpollEvent) int {
	n, err := poll(l.epfd, events)
	if err != nil {
		return -1
	}
	return n
}

const (
	epollIn   = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET
	epollGone = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
)

func (l *loop) serve(e *unix.EpollEvent) {
	c := l.conn(int(e.Fd))
	if c == nil {
		return
	}
	defer func() {
		if v := recover(); v != nil {
			l.panicked(v)
			c.end()
		}
	}()
	if e.Events&unix.EPOLLOUT != 0 {
		c.drain()
	}
	if e.Events&(unix.EPOLLIN|epollGone) != 0 && !c.read(e.Events&epollGone != 0) {
		c.end()
	}
}

func (l *loop) conn(fd int) *loopConn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if fd < len(l.conns) {
		return l.conns[fd]
	}
	return nil
}

func (l *loop) put(c *loopConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.conns) <= c.fd {
		l.conns = append(l.conns, nil)
	}
	l.conns[c.fd] = c
}

func (l *loop) remove(fd int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[fd] = nil
}

// loopConn is one connection of a loop.
type loopConn struct {
	// Static after Start.
	loop *loop
	fd   int
	to   Receiver

	step atomic.Pointer[drainStep] // to call when the connection is writable; nil: none
}

// Start implements Conn.
func (c *loopConn) Start(r Receiver) error {
	c.to = r
	c.loop.put(c)
	e := unix.EpollEvent{Events: epollIn, Fd: int32(c.fd)}
	if err := unix.EpollCtl(c.loop.epfd, unix.EPOLL_CTL_ADD, c.fd, &e); err != nil {
		c.loop.remove(c.fd)
		return fmt.Errorf("event loop: %w", err)
	}
	if c.step.Load() != nil { // Drain was called before Start
		c.rearm()
	}
	return nil
}

// Abandon implements Conn.
func (c *loopConn) Abandon() { _ = unix.Close(c.fd) }

// read passes on what has arrived; false closes the connection. Events are
// edge-triggered: unread bytes cause no further event. So read goes on until a read fills
// only a part of the buffer, or asks for another event after maxReads: a client that
// sends without pause must not keep the loop from its other connections.
func (c *loopConn) read(gone bool) bool {
	buf := c.loop.buf
	for range maxReads {
		n, err := rawRead(c.fd, buf)
		switch {
		case n > 0:
			if !c.to.Receive(buf[:n]) {
				return false
			}
			if n < len(buf) && !gone {
				return true
			}
		case err == unix.EAGAIN:
			return true
		default:
			return false
		}
	}
	c.rearm()
	return true
}

// end closes the connection. The loop's goroutine calls it once.
func (c *loopConn) end() {
	c.loop.remove(c.fd)
	c.to.End() // nothing is written after it returns
	_ = unix.Close(c.fd)
}

// Write implements Conn.
func (c *loopConn) Write(p []byte) (int, error) { return writeNow(c.fd, p) }

// drainStep is the argument of Conn.Drain.
type drainStep func(write func([]byte) (int, error)) bool

// Drain implements Conn. The step is stored before the event is requested, and epoll
// checks the connection's state when an event is modified, so no change is missed.
func (c *loopConn) Drain(step func(write func([]byte) (int, error)) bool) {
	c.store(step)
	c.rearm()
}

func (c *loopConn) store(step drainStep) { c.step.Store(&step) }

// rearm asks for an event if the connection is readable or writable now. It always asks
// for both: read and Drain may call it at the same time, and neither may undo the other's.
func (c *loopConn) rearm() {
	e := unix.EpollEvent{Events: epollIn | unix.EPOLLOUT, Fd: int32(c.fd)}
	// This fails before Start has added the connection; Start calls rearm then.
	_ = unix.EpollCtl(c.loop.epfd, unix.EPOLL_CTL_MOD, c.fd, &e)
}

func (c *loopConn) drain() {
	step := c.step.Swap(nil)
	if step == nil || (*step)(c.Write) {
		return
	}
	c.step.Store(step)
	c.rearm()
}

// Close implements Conn. The loop notices the shutdown and closes the descriptor.
func (c *loopConn) Close() { _ = unix.Shutdown(c.fd, unix.SHUT_RDWR) }
