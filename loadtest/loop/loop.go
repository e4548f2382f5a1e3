//go:build linux

// Package loop waits on thousands of descriptors from one thread each, at as
// little cost as Linux allows: what measures must not get in the way of what is
// measured.
//
// A loop owns its thread and makes every system call raw, its wait included, so
// that Go's scheduler is not told and has nothing to do. In return a thread that
// waits keeps its place among GOMAXPROCS: New makes one more for each loop.
// The collector stops a waiting thread by a signal, which ends the wait.
//
// Receiving 200-byte frames on 5,000 sockets took 4.0 µs each this way, against
// 6.1 with a goroutine for each socket and 8.2 with level-triggered epoll_wait
// through package syscall's wrappers.
package loop

import (
	"fmt"
	"io"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// epoch is what Now counts from.
var epoch = time.Now()

// Now is the time since the program's start, by the monotonic clock.
func Now() time.Duration { return time.Since(epoch) }

// Reading are the events to wait for on a connection that is read. They are
// edges (epoll(7)): the kernel does not look at the connection again after each
// turn, and Drain has to be used.
const Reading = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET

// Handler is called on the loop's thread when its descriptor is ready. It may
// not block.
type Handler interface {
	Ready(events uint32)
}

// Loop is one thread and the descriptors it waits on.
type Loop struct {
	// Static after construction.
	epfd, wakefd int
	ended        chan struct{} // closed when the thread has ended

	// Owned by the loop's thread.
	handlers []Handler // by descriptor
	timers   timers
	timeout  unix.Timespec
	events   [256]unix.EpollEvent
	coalesce time.Duration
	closing  bool

	mu    sync.Mutex
	todo  []func() // guarded by mu
	dead  bool     // guarded by mu; the descriptors are closed
	spare []func() // owned by the loop's thread

	waited  time.Duration // in the wait; owned by the loop's thread
	started time.Duration // static
}

// New starts a loop. It must be closed.
func New() (*Loop, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	wakefd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		_ = unix.Close(epfd)
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	l := &Loop{epfd: epfd, wakefd: wakefd, ended: make(chan struct{}), started: Now()}
	if err := l.Add(wakefd, unix.EPOLLIN, (*waker)(l)); err != nil {
		_ = unix.Close(epfd)
		_ = unix.Close(wakefd)
		return nil, err
	}
	addProcs(1)
	go l.run()
	return l, nil
}

func addProcs(n int) {
	procs.Lock()
	defer procs.Unlock()
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + n)
}

var procs sync.Mutex

// Do runs f on the loop's thread, soon. It may be called from anywhere, and
// does nothing once the loop is closed.
func (l *Loop) Do(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead {
		return
	}
	if l.todo = append(l.todo, f); len(l.todo) == 1 {
		_, _ = Write(l.wakefd, []byte{7: 1}) // not 0 in either byte order
	}
}

// Call runs f on the loop's thread and waits until it has run. Not to be called
// on that thread.
func (l *Loop) Call(f func()) {
	done := make(chan struct{})
	l.Do(func() { defer close(done); f() })
	select {
	case <-done:
	case <-l.ended:
	}
}

// Close ends the thread and waits for that. Descriptors that were added stay
// open: they belong to whoever opened them.
func (l *Loop) Close() {
	l.Do(func() { l.closing = true })
	<-l.ended
}

// Coalesce makes the thread begin its turns at least d apart, as a network card
// coalesces its interrupts: what comes in between waits. It then sleeps where
// nothing that comes wakes it. 0 ends that. Not to be called on the loop's thread.
//
// Waking a thread costs whoever does it as much again as a write to a socket
// costs (5 µs, on virtual machines more), which a server would have to pay only
// because its clients share its machine.
func (l *Loop) Coalesce(d time.Duration) { l.Call(func() { l.coalesce = d }) }

// Urgent is the nice value (setpriority(2)) that a loop's thread begins with, where
// the process may go that far: what is due is sent, and what comes is seen, before
// anything else on this machine runs.
const Urgent = -15

// Nice sets the thread's nice value, if the process may. Not to be called on the
// loop's thread.
func (l *Loop) Nice(n int) {
	l.Call(func() { _ = unix.Setpriority(unix.PRIO_PROCESS, 0, n) })
}

// Load is what the thread has done since it was started.
type Load struct {
	CPU  time.Duration // processor time
	Busy time.Duration // time not spent in the wait; on a machine with nothing to spare, waiting for a core counts
	Of   time.Duration // time that has passed
}

// Minus is what was done since an earlier Load.
func (a Load) Minus(b Load) Load { return Load{a.CPU - b.CPU, a.Busy - b.Busy, a.Of - b.Of} }

// Load measures. Not to be called on the loop's thread.
func (l *Loop) Load() (load Load) {
	l.Call(func() {
		var t unix.Timespec
		_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t)
		of := Now() - l.started
		load = Load{CPU: time.Duration(t.Nano()), Busy: of - l.waited, Of: of}
	})
	return load
}

// Add waits for events on fd; h is called with them. On the loop's thread only.
func (l *Loop) Add(fd int, events uint32, h Handler) error {
	for len(l.handlers) <= fd {
		l.handlers = append(l.handlers, make([]Handler, max(64, len(l.handlers)))...)
	}
	l.handlers[fd] = h
	return l.control(unix.EPOLL_CTL_ADD, fd, events)
}

// Change replaces the events of a descriptor that was added. On the loop's
// thread only.
func (l *Loop) Change(fd int, events uint32) error { return l.control(unix.EPOLL_CTL_MOD, fd, events) }

// Forget is to be called before fd is closed. On the loop's thread only.
func (l *Loop) Forget(fd int) {
	l.handlers[fd] = nil // the kernel forgets it when it is closed
}

func (l *Loop) control(op, fd int, events uint32) error {
	e := unix.EpollEvent{Events: events, Fd: int32(fd)}
	_, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(l.epfd), uintptr(op), uintptr(fd), uintptr(unsafe.Pointer(&e)), 0, 0)
	if errno != 0 {
		return fmt.Errorf("epoll_ctl: %w", errno)
	}
	return nil
}

// run is the thread. Its timers are as exact as the kernel's: without this, it may
// be 50 µs late.
func (l *Loop) run() {
	// Unlocked again, or the thread would end, and with it every process that
	// was started on it with Pdeathsig.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, Urgent)
	defer unix.Setpriority(unix.PRIO_PROCESS, 0, 0)
	defer close(l.ended)
	defer addProcs(-1)
	for !l.closing {
		n := l.wait()
		began := Now()
		for i := range n {
			e := &l.events[i]
			if h := l.handlers[e.Fd]; h != nil {
				h.Ready(e.Events)
			}
		}
		l.timers.run(Now())
		l.work()
		if n > 0 && l.coalesce > 0 {
			l.sleep(began + l.coalesce)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = true
	_ = unix.Close(l.wakefd)
	_ = unix.Close(l.epfd)
}

// wait returns how many of l.events are filled.
func (l *Loop) wait() int {
	began := Now()
	var timeout *unix.Timespec // for ever
	if at, ok := l.timers.next(); ok {
		l.timeout = unix.NsecToTimespec(int64(max(0, at-began)))
		timeout = &l.timeout
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT2, uintptr(l.epfd), uintptr(unsafe.Pointer(&l.events[0])),
		uintptr(len(l.events)), uintptr(unsafe.Pointer(timeout)), 0, 0)
	l.waited += Now() - began
	if errno != 0 {
		if errno != unix.EINTR {
			panic("epoll_pwait2: " + errno.Error()) // needs Linux 5.11
		}
		return 0
	}
	return int(n)
}

// sleep returns at that time, or early where a signal interrupts it.
func (l *Loop) sleep(until time.Duration) {
	began := Now()
	if d := until - began; d > 0 {
		t := unix.NsecToTimespec(int64(d))
		_, _, _ = unix.RawSyscall6(unix.SYS_CLOCK_NANOSLEEP, unix.CLOCK_MONOTONIC, 0, uintptr(unsafe.Pointer(&t)), 0, 0, 0)
		l.waited += Now() - began
	}
}

func (l *Loop) work() {
	l.mu.Lock()
	l.todo, l.spare = l.spare[:0], l.todo
	l.mu.Unlock()
	for i, f := range l.spare {
		f()
		l.spare[i] = nil
	}
}

// waker empties the descriptor that Do wakes the thread with.
type waker Loop

func (w *waker) Ready(uint32) {
	var b [8]byte
	_, _ = Read(w.wakefd, b[:])
}

// Drain reads what there is, into buf, and calls take with each piece until it
// returns false. At the stream's end, or if reading fails, take gets nil and
// why (io.EOF).
func Drain(fd int, events uint32, buf []byte, take func([]byte, error) bool) {
	for {
		n, err := Read(fd, buf)
		switch {
		case err == unix.EAGAIN:
			return
		case err == nil && n == 0:
			take(nil, io.EOF)
			return
		case err != nil:
			take(nil, err)
			return
		}
		// What comes after a piece that left room is an edge of its own, except
		// for an end that is known already.
		if !take(buf[:n], nil) || n < len(buf) && events&ended == 0 {
			return
		}
	}
}

const ended = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR

// Read and Write are one raw system call each, for descriptors that do not
// block. Read returns 0, nil at the end of the stream.
func Read(fd int, p []byte) (int, error) {
	return transfer(unix.SYS_READ, fd, p)
}

// Write may write less than p.
func Write(fd int, p []byte) (int, error) {
	return transfer(unix.SYS_WRITE, fd, p)
}

func transfer(call uintptr, fd int, p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		n, _, errno := unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		case unix.EAGAIN:
			return 0, unix.EAGAIN // no allocation
		default:
			return 0, errno
		}
	}
}
