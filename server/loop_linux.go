package server

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"herald/internal/transport"
)

// loops are event loops that read from any number of connections with one
// goroutine and one buffer each, so that an idle connection has neither.
//
// A loop owns its connections' descriptors: it alone closes one, after the last
// use by anybody else. Whoever else wants a connection ended shuts it down, which
// the loop notices; a descriptor that was closed elsewhere could already be
// another user's.
type loops struct {
	list []*loop
	next atomic.Uint32
	wg   sync.WaitGroup
}

type loop struct {
	// Static after construction.
	epfd     int
	file     *os.File        // epfd in Go's own poller: a third cheaper than waiting in epoll_wait
	raw      syscall.RawConn // file's
	panicked func(v any)

	// Owned by run.
	buf []byte

	mu    sync.Mutex
	conns []*loopConn // guarded by mu: by descriptor
}

// loopBuffer is how much a loop reads from a connection at once, in bytes.
const loopBuffer = 64 << 10

// newLoops starts a loop for each processor. panicked is told of panics in
// receivers; each ends its own connection only.
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
	if err := unix.SetNonblock(epfd, true); err != nil { // os.NewFile polls only what doesn't block
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

// adopt takes a over: a is to be closed, the connection stays open. Nothing is
// read before start. The kernel ends it if its peer leaves something unread for
// longer than patience; 0: it doesn't.
func (ls *loops) adopt(a *transport.Accepted, patience time.Duration) (peerConn, error) {
	fd, err := a.Detach()
	if err != nil {
		return nil, err
	}
	setUserTimeout(fd, patience)
	return &loopConn{loop: ls.list[ls.next.Add(1)%uint32(len(ls.list))], fd: fd}, nil
}

// stop ends the loops. Their connections must have ended.
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

// ready returns how many events there are now; below 0 if that cannot be told.
func (l *loop) ready(events []unix.EpollEvent) int {
	n, err := transport.Poll(l.epfd, events)
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

// loopConn is one connection of a loop. Its hub.Transport methods are called
// under its socket's mutex, and not after the socket has ended.
type loopConn struct {
	// Static after start.
	loop *loop
	fd   int
	to   receiver

	step atomic.Pointer[drainStep] // what to call when the connection is writable
}

// start has the loop read and hand to r what comes, until r has enough or the
// connection ends; then r.end is called.
func (c *loopConn) start(r receiver) error {
	c.to = r
	c.loop.put(c)
	e := unix.EpollEvent{Events: epollIn, Fd: int32(c.fd)}
	if err := unix.EpollCtl(c.loop.epfd, unix.EPOLL_CTL_ADD, c.fd, &e); err != nil {
		c.loop.remove(c.fd)
		return fmt.Errorf("event loop: %w", err)
	}
	if c.step.Load() != nil { // asked for before the loop knew the connection
		c.arm()
	}
	return nil
}

// abandon closes a connection that was not started.
func (c *loopConn) abandon() { _ = unix.Close(c.fd) }

// read hands on everything there is; false ends the connection. Events tell of
// changes, so what is left unread would not be heard of again; a read that fills
// only a part of the buffer has taken all.
func (c *loopConn) read(gone bool) bool {
	buf := c.loop.buf
	for {
		n, err := transport.Read(c.fd, buf)
		switch {
		case n > 0:
			if !c.to.receive(buf[:n]) {
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
}

// end is called on the loop's goroutine, once.
func (c *loopConn) end() {
	c.loop.remove(c.fd)
	c.to.end() // from here on nobody writes
	_ = unix.Close(c.fd)
}

// Write implements hub.Transport.
func (c *loopConn) Write(p []byte) (int, error) { return writeNow(c.fd, p) }

// drainStep is what hub.Transport.Drain is given.
type drainStep func(write func([]byte) (int, error)) bool

// Drain implements hub.Transport. Arming after the step is stored leaves no gap:
// modifying an event looks at the connection's state anew.
func (c *loopConn) Drain(step func(write func([]byte) (int, error)) bool) {
	c.store(step)
	c.arm()
}

func (c *loopConn) store(step drainStep) { c.step.Store(&step) }

func (c *loopConn) arm() {
	e := unix.EpollEvent{Events: epollIn | unix.EPOLLOUT, Fd: int32(c.fd)}
	// It fails while the loop does not know the connection; start arms it then.
	_ = unix.EpollCtl(c.loop.epfd, unix.EPOLL_CTL_MOD, c.fd, &e)
}

func (c *loopConn) drain() {
	step := c.step.Swap(nil)
	if step == nil || (*step)(c.Write) {
		return
	}
	c.step.Store(step)
	c.arm()
}

// Close implements hub.Transport: the loop hears of it and closes the descriptor.
func (c *loopConn) Close() { _ = unix.Shutdown(c.fd, unix.SHUT_RDWR) }
