//go:build linux

package crowd

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

// Caller sends HTTP requests over connections that it keeps alive, one at a
// time on each, all from one loop.
type Caller struct {
	// Static after construction.
	loop  *loop.Loop
	peer  unix.SockaddrInet4
	grace time.Duration // how long answers may take after the last request

	// Owned by the loop's thread.
	calls []*call
	buf   []byte
	work  *working

	answered, sent atomic.Int64
}

// NewCaller returns a caller with n connections, which are opened when they are
// needed. The loop must outlive it.
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

// Work is what a caller is to do.
type Work struct {
	// Request appends the i-th request. It is called on the loop's thread.
	Request func(dst []byte, i int, due time.Duration) []byte
	// Answer is called with each answer, on the loop's thread. Default: nobody is.
	Answer func(i int, r wire.Response)
	// Failed is called with each request that was not answered with a 2xx, on
	// the loop's thread. Default: nobody is.
	Failed func(i int)
	// Ready says whether one more may be sent; where it may not, it is asked
	// again soon. Default: always.
	Ready func() bool
	// Pace is when each is due. Default: as soon as a connection is free.
	Pace measure.Pace
	// For is how long to go on. What is due by then on a schedule is still sent, if
	// the server frees a connection for it within five seconds more. Default:
	// until Count, or until the context ends.
	For time.Duration
	// Count is how many to send. Default: no limit.
	Count int
}

// Answers is what became of Work.
type Answers struct {
	Sent, OK int // OK: answered with a 2xx
	Failed   int // answered otherwise, or not at all
	Took     time.Duration
	Latency  *measure.Histogram // from when a request was due to its answer
	Slip     *measure.Histogram // on a schedule, from when it was due until it was sent, for those that nothing but the load generator held up
	Unsent   *measure.Histogram // how long those have waited that were due and never sent, as no connection was free: they are in no other number
	Err      error              // the first failure
}

// working is work under way, owned by the loop's thread.
type working struct {
	Work
	began    time.Duration
	next     int
	inFlight int
	waiting  bool // a timer is set
	held     bool // by what is not the load generator's fault: no free connection, or not Ready
	over     bool // nothing more is sent
	a        Answers
	done     chan struct{} // closed when it is over and nothing is in flight
}

const grace = 5 * time.Second

// Do sends requests until the work is done, and waits for their answers. One
// Do at a time.
func (c *Caller) Do(ctx context.Context, w Work) Answers {
	work := &working{Work: w, done: make(chan struct{}), a: Answers{Latency: measure.NewHistogram(), Slip: measure.NewHistogram(), Unsent: measure.NewHistogram()}}
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

// Sent and Answered count over all work.
func (c *Caller) Sent() int64 { return c.sent.Load() }

// Answered counts answers of any status.
func (c *Caller) Answered() int64 { return c.answered.Load() }

// Close closes the connections.
func (c *Caller) Close() {
	c.loop.Call(func() {
		for _, k := range c.calls {
			k.close()
		}
	})
}

// timeIsUp ends the work, but not before what is due has been sent: leaving that
// out would spare a server that stalls.
func (c *Caller) timeIsUp(w *working) {
	if c.work != w || w.over {
		return
	}
	if !w.Pace.Open() {
		c.finish(w)
		return
	}
	if n := w.Pace.Count(w.For); w.Count == 0 || n < w.Count {
		w.Count = n
	}
	c.loop.At(loop.Now()+c.grace, func() {
		if c.work == w && !w.over {
			for i := w.next; i < w.Count; i++ {
				w.a.Unsent.Record(loop.Now() - w.began - w.Pace.Due(i))
			}
			c.finish(w)
		}
	})
	c.more()
}

func (c *Caller) finish(w *working) {
	if c.work != w || w.over {
		return
	}
	w.over = true
	c.loop.At(loop.Now()+c.grace, func() { c.abandon(w) })
	c.settle()
}

// abandon counts what is still in flight as failed.
func (c *Caller) abandon(w *working) {
	if c.work != w {
		return
	}
	for _, k := range c.calls {
		if k.busy {
			c.failed(k, fmt.Errorf("no answer within %v", c.grace))
		}
	}
	w.over = true
	c.settle()
}

// settle ends the work if there is nothing left of it.
func (c *Caller) settle() {
	w := c.work
	if w == nil || w.inFlight > 0 || !w.over {
		return
	}
	c.work = nil
	close(w.done)
}

// retry is how soon Ready is asked again.
const retry = 200 * time.Microsecond

// more sends what is due and has a free connection.
func (c *Caller) more() {
	for w := c.work; w != nil && !w.over; w = c.work {
		if w.Count > 0 && w.next >= w.Count {
			c.finish(w)
			return
		}
		k := c.free()
		if k == nil {
			w.held = true
			return // the next answer calls
		}
		now := loop.Now()
		due := now
		if w.Pace.Open() {
			if due = w.began + w.Pace.Due(w.next); due > now {
				w.held = false
				c.wait(w, due)
				return
			}
		}
		if w.Ready != nil && !w.Ready() {
			w.held = true
			c.wait(w, now+retry)
			return
		}
		w.next++
		c.begin(k, w.next-1, due, now)
	}
}

func (c *Caller) wait(w *working, until time.Duration) {
	if w.waiting {
		return
	}
	w.waiting = true
	c.loop.At(until, func() { w.waiting = false; c.more() })
}

func (c *Caller) free() *call {
	for i, k := range c.calls {
		if !k.busy {
			// The first ones are the busy ones: look behind them next time.
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
	if w.Pace.Open() && !w.held {
		w.a.Slip.Record(now - due)
	}
	k.out = w.Request(k.out[:0], i, due)
	k.send()
}

func (c *Caller) answer(k *call, r wire.Response) {
	w := c.work
	k.busy = false
	c.answered.Add(1)
	w.inFlight--
	now := loop.Now()
	w.a.Latency.Record(now - k.due)
	w.a.Took = now - w.began
	if r.Status/100 == 2 {
		w.a.OK++
	} else {
		w.fail(k.i, fmt.Errorf("answered %d: %.300s", r.Status, r.Body))
	}
	if w.Answer != nil {
		w.Answer(k.i, r)
	}
	c.more()
	c.settle()
}

func (c *Caller) failed(k *call, err error) {
	w := c.work
	k.close()
	k.busy = false
	w.inFlight--
	w.a.Took = loop.Now() - w.began
	w.fail(k.i, err)
	c.settle()
	c.loop.At(loop.Now()+10*time.Millisecond, c.more) // a server that is gone is not asked in a tight loop
}

func (w *working) fail(i int, err error) {
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
	in     []byte // of the answer, while it is incomplete
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

// dial opens a connection and waits for its events on the loop, on whose thread
// it is called. Connecting blocks: on the loopback network it takes no time.
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

// take is called with what was read; false: no more of it.
func (k *call) take(b []byte, err error) bool {
	fd := k.fd
	switch {
	case err == nil:
		k.read(b)
	case k.busy:
		k.caller.failed(k, fmt.Errorf("connection lost before the answer: %w", err))
	default:
		k.close() // a server may close what is idle
	}
	return k.fd == fd
}

func (k *call) read(b []byte) {
	if len(k.in) > 0 {
		b = append(k.in, b...)
	}
	r, n, err := wire.CutResponse(b)
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
