//go:build linux

package clients

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"herald/loadtest/loop"
	"herald/loadtest/measure"
	"herald/loadtest/wire"
)

// Caller sends HTTP requests over keep-alive connections, one request at a time on
// each, all from one loop.
type Caller struct {
	// Static after construction.
	loop  *loop.Loop
	peer  unix.SockaddrInet4
	grace time.Duration // time limit for answers after the last request

	// Owned by the loop's thread.
	calls []*call
	buf   []byte
	work  *job

	sent atomic.Int64
}

// NewCaller returns a caller with n connections, which it opens on first use. The
// loop must outlive it.
func NewCaller(l *loop.Loop, addr string, n int) (*Caller, error) {
	peer, err := sockaddr(addr)
	if err != nil {
		return nil, err
	}
	c := &Caller{loop: l, peer: peer, grace: grace, buf: make([]byte, 64<<10)}
	for range n {
		c.calls = append(c.calls, &call{caller: c, fd: -1})
	}
	return c, nil
}

// Work describes the requests that a Caller sends.
type Work struct {
	// Request appends the i-th request. It is called on the loop's thread.
	Request func(dst []byte, i int, due time.Duration) []byte
	// Answer is called on the loop's thread with each response. Optional.
	Answer func(i int, r wire.Response)
	// Failed is called on the loop's thread with each request that got no 2xx
	// response. Optional.
	Failed func(i int)
	// Ready reports whether the next request may be sent; it is polled every
	// 200 µs. Default: always.
	Ready func() bool
	// Schedule sets when each request is due. Default: as soon as a connection is free.
	Schedule measure.Schedule
	// For limits the duration. Requests due by then are still sent if a connection
	// becomes free within five more seconds. Default: until Count requests are
	// sent, or the context ends.
	For time.Duration
	// Count limits the number of requests. Default: no limit.
	Count int
}

// Answers is the result of Work.
type Answers struct {
	Sent, OK  int // OK: a 2xx response
	Failed    int // any other response, or none
	Took      time.Duration
	Latency   *measure.Histogram // from the time a request was due to its response
	SendDelay *measure.Histogram // on a schedule: from due to sent, for requests that only the load generator delayed
	Unsent    *measure.Histogram // waiting time of requests that were due and never sent, for lack of a free connection; not counted elsewhere
	Err       error              // the first failure
}

// job is Work in progress. Owned by the loop's thread.
type job struct {
	Work
	began      time.Duration
	next       int
	inFlight   int
	waiting    bool // a timer is set
	serverBusy bool // the server delays the next request: no free connection, or not Ready
	stopped    bool // no further request is sent
	a          Answers
	done       chan struct{} // closed when stopped and nothing is in flight
}

const grace = 5 * time.Second

// Do sends the requests of w and waits for their responses. Only one Do may run at
// a time.
func (c *Caller) Do(ctx context.Context, w Work) Answers {
	work := &job{Work: w, done: make(chan struct{}), a: Answers{Latency: measure.NewHistogram(), SendDelay: measure.NewHistogram(), Unsent: measure.NewHistogram()}}
	c.loop.Call(func() {
		c.work = work
		work.began = loop.Now()
		if w.For > 0 {
			c.loop.At(work.began+w.For, func() { c.timeIsUp(work) })
		}
		c.more()
	})
	select {
	case <-work.done:
	case <-ctx.Done():
		c.loop.Call(func() { c.finish(work) })
		select {
		case <-work.done:
		case <-time.After(c.grace):
		}
	}
	c.loop.Call(func() { c.abandon(work) })
	return work.a
}

// Sent counts the requests of all Do calls.
func (c *Caller) Sent() int64 { return c.sent.Load() }

// Close closes the connections.
func (c *Caller) Close() {
	c.loop.Call(func() {
		for _, k := range c.calls {
			k.close()
		}
	})
}

// timeIsUp stops the work once every due request is sent. Dropping them would hide
// a stalled server.
func (c *Caller) timeIsUp(w *job) {
	if c.work != w || w.stopped {
		return
	}
	if !w.Schedule.Open() {
		c.finish(w)
		return
	}
	if n := w.Schedule.Count(w.For); w.Count == 0 || n < w.Count {
		w.Count = n
	}
	c.loop.At(loop.Now()+c.grace, func() {
		if c.work == w && !w.stopped {
			for i := w.next; i < w.Count; i++ {
				w.a.Unsent.Record(loop.Now() - w.began - w.Schedule.Due(i))
			}
			c.finish(w)
		}
	})
	c.more()
}

func (c *Caller) finish(w *job) {
	if c.work != w || w.stopped {
		return
	}
	w.stopped = true
	c.loop.At(loop.Now()+c.grace, func() { c.abandon(w) })
	c.closeIfDone()
}

// abandon fails the requests that are still in flight.
func (c *Caller) abandon(w *job) {
	if c.work != w {
		return
	}
	for _, k := range c.calls {
		if k.busy {
			c.failed(k, fmt.Errorf("no response within %v", c.grace))
		}
	}
	w.stopped = true
	c.closeIfDone()
}

// closeIfDone completes the work when it is stopped and nothing is in flight.
func (c *Caller) closeIfDone() {
	w := c.work
	if w == nil || w.inFlight > 0 || !w.stopped {
		return
	}
	c.work = nil
	close(w.done)
}

// retry is the poll interval of Ready.
const retry = 200 * time.Microsecond

// more sends due requests while connections are free.
func (c *Caller) more() {
	for w := c.work; w != nil && !w.stopped; w = c.work {
		if w.Count > 0 && w.next >= w.Count {
			c.finish(w)
			return
		}
		k := c.free()
		if k == nil {
			w.serverBusy = true
			return // the next response calls more
		}
		now := loop.Now()
		due := now
		if w.Schedule.Open() {
			if due = w.began + w.Schedule.Due(w.next); due > now {
				w.serverBusy = false
				c.wait(w, due)
				return
			}
		}
		if w.Ready != nil && !w.Ready() {
			w.serverBusy = true
			c.wait(w, now+retry)
			return
		}
		w.next++
		c.begin(k, w.next-1, due, now)
	}
}

func (c *Caller) wait(w *job, until time.Duration) {
	if w.waiting {
		return
	}
	w.waiting = true
	c.loop.At(until, func() { w.waiting = false; c.more() })
}

func (c *Caller) free() *call {
	for i, k := range c.calls {
		if !k.busy {
			// Busy connections gather at the front: move this one to the end.
			c.calls[i], c.calls[len(c.calls)-1] = c.calls[len(c.calls)-1], k
			return k
		}
	}
	return nil
}

func (c *Caller) begin(k *call, i int, due, now time.Duration) {
	w := c.work
	k.busy, k.i, k.due = true, i, due
	w.inFlight++
	w.a.Sent++
	c.sent.Add(1)
	if w.Schedule.Open() && !w.serverBusy {
		w.a.SendDelay.Record(now - due)
	}
	k.out = w.Request(k.out[:0], i, due)
	k.send()
}

func (c *Caller) answer(k *call, r wire.Response) {
	w := c.work
	k.busy = false
	w.inFlight--
	now := loop.Now()
	w.a.Latency.Record(now - k.due)
	w.a.Took = now - w.began
	if r.Status/100 == 2 {
		w.a.OK++
	} else {
		w.fail(k.i, fmt.Errorf("response %d: %.300s", r.Status, r.Body))
	}
	if w.Answer != nil {
		w.Answer(k.i, r)
	}
	c.more()
	c.closeIfDone()
}

func (c *Caller) failed(k *call, err error) {
	w := c.work
	k.close()
	k.busy = false
	w.inFlight--
	w.a.Took = loop.Now() - w.began
	w.fail(k.i, err)
	c.closeIfDone()
	c.loop.At(loop.Now()+10*time.Millisecond, c.more) // no tight loop against a dead server
}

func (w *job) fail(i int, err error) {
	w.a.Failed++
	if w.Failed != nil {
		w.Failed(i)
	}
	if w.a.Err == nil {
		w.a.Err = err
	}
}

// call is one connection. Owned by the loop's thread.
type call struct {
	caller *Caller
	fd     int // -1: closed
	busy   bool
	i      int
	due    time.Duration
	out    []byte // the request
	in     []byte // the incomplete response
}

func (k *call) send() {
	if k.fd < 0 {
		var err error
		if k.fd, err = dial(k.caller.loop, k.caller.peer, k); err != nil {
			k.caller.failed(k, err)
			return
		}
	}
	n, err := loop.Write(k.fd, k.out)
	switch {
	case err != nil && err != unix.EAGAIN:
		k.caller.failed(k, fmt.Errorf("send: %w", err))
	case n < len(k.out):
		k.out = append(k.out[:0], k.out[n:]...)
		_ = k.caller.loop.Change(k.fd, loop.Reading|unix.EPOLLOUT)
	default:
		k.out = k.out[:0]
	}
}

// dial opens a connection and adds it to the loop. To be called on the loop's
// thread. It blocks while connecting, which is negligible on the loopback network.
func dial(l *loop.Loop, peer unix.SockaddrInet4, h loop.Handler) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if err = unix.Connect(fd, &peer); err != nil {
		err = fmt.Errorf("connect: %w", err)
	} else if err = unix.SetNonblock(fd, true); err == nil {
		err = l.Add(fd, loop.Reading, h)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// Ready is called by the loop.
func (k *call) Ready(events uint32) {
	if events&unix.EPOLLOUT != 0 && len(k.out) > 0 {
		_ = k.caller.loop.Change(k.fd, loop.Reading)
		k.send()
	}
	if k.fd >= 0 {
		loop.Drain(k.fd, events, k.caller.buf, k.take)
	}
}

// take handles what was read. It returns false when the connection was replaced.
func (k *call) take(b []byte, err error) bool {
	fd := k.fd
	switch {
	case err == nil:
		k.read(b)
	case k.busy:
		k.caller.failed(k, fmt.Errorf("connection lost before the response: %w", err))
	default:
		k.close() // a server may close an idle connection
	}
	return k.fd == fd
}

func (k *call) read(b []byte) {
	if len(k.in) > 0 {
		b = append(k.in, b...)
	}
	r, n, err := wire.ParseResponse(b)
	switch {
	case err == nil && n == 0:
		k.in = append([]byte(nil), b...)
	case err == nil && k.busy && n == len(b):
		k.in = nil
		k.caller.answer(k, r)
	case k.busy:
		k.caller.failed(k, fmt.Errorf("%w: %.200q", wire.ErrResponse, b))
	default:
		k.close()
	}
}

func (k *call) close() {
	if k.fd < 0 {
		return
	}
	k.caller.loop.Forget(k.fd)
	_ = unix.Close(k.fd)
	k.fd, k.in = -1, nil
}
