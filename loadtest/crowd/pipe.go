//go:build linux

package crowd

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"herald/loadtest/loop"
	"herald/loadtest/measure"
	"herald/loadtest/wire"
)

// Pipe publishes straight to Redis over one connection, many commands in each
// write, no more of them under way than the sockets keep up with.
type Pipe struct {
	Addr     string                                            // of Redis
	Command  func(dst []byte, i int, due time.Duration) []byte // appends the i-th command; on the loop's thread
	Received func() int64                                      // how many have come out at the other end, ever
	Window   int64                                             // how many may be under way
	Pace     measure.Pace                                      // when each is due; default: as soon as the window has room
	Batch    int                                               // how many go into one write
}

// Piped is what a pipe has done.
type Piped struct {
	Sent   int64
	Lost   int64              // that did not come out
	Unsent *measure.Histogram // how long those have waited that were due and never sent, as the window had no room
	Err    error
}

// pipe is a Pipe at work, owned by the loop's thread.
type pipe struct {
	Pipe
	loop    *loop.Loop
	fd      int
	out, in []byte
	buf     []byte // what is read
	blocked bool   // the kernel did not take all of out
	sent    int64
	acked   int64
	base    int64 // Received at the start
	began   time.Duration
	limit   int64 // how many are sent in all; negative: not known yet
	err     error
	done    chan struct{}
}

// Run publishes for that long, then waits for what is under way.
func (p Pipe) Run(ctx context.Context, l *loop.Loop, d time.Duration) Piped {
	r := &pipe{Pipe: p, loop: l, fd: -1, buf: make([]byte, 64<<10), base: p.Received(), limit: -1, done: make(chan struct{})}
	if p.Pace.Open() {
		r.limit = int64(p.Pace.Count(d))
	}
	l.Call(r.start)
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	case <-r.done:
	}
	l.Call(func() {
		if !p.Pace.Open() {
			r.limit = r.sent
		}
	})
	r.drain(ctx) // what is due is still sent
	result := Piped{Unsent: measure.NewHistogram()}
	l.Call(func() {
		r.close()
		result.Sent, result.Lost, result.Err = r.sent, r.sent-(p.Received()-r.base), r.err
		for i := r.sent; i < r.limit; i++ {
			result.Unsent.Record(loop.Now() - r.began - p.Pace.Due(int(i)))
		}
	})
	return result
}

// drain waits until all has been received, or nothing more comes.
func (r *pipe) drain(ctx context.Context) {
	for last, idle := int64(-1), 0; idle < 200 && ctx.Err() == nil; {
		var all int64
		r.loop.Call(func() { all = r.limit })
		got := r.Received() - r.base
		if got >= all {
			return
		}
		if got == last {
			idle++
		} else {
			last, idle = got, 0
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (r *pipe) start() {
	peer, err := sockaddr(r.Addr)
	if err == nil {
		r.fd, err = dial(r.loop, peer, r)
	}
	if err != nil {
		r.fail(err)
		return
	}
	r.began = loop.Now()
	r.more()
}

func (r *pipe) fail(err error) {
	if r.err == nil {
		r.err = fmt.Errorf("redis: %w", err)
		close(r.done)
	}
}

func (r *pipe) close() {
	if r.fd >= 0 {
		r.loop.Forget(r.fd)
		_ = unix.Close(r.fd)
		r.fd = -1
	}
}

// more sends while the window has room, and looks again soon where it has not.
func (r *pipe) more() {
	if r.err != nil || r.blocked || r.fd < 0 || r.sent == r.limit {
		return
	}
	now := loop.Now()
	n := r.Batch
	if r.Pace.Open() {
		if n = min(n, r.Pace.Count(now-r.began+1)-int(r.sent)); n <= 0 {
			r.loop.At(r.began+r.Pace.Due(int(r.sent)), r.more)
			return
		}
	}
	if room := r.Window - (r.sent - (r.Received() - r.base)); room < int64(n) || r.sent-r.acked > r.Window {
		r.loop.At(now+retry, r.more)
		return
	}
	for i := 0; i < n && r.sent != r.limit; i++ {
		due := now
		if r.Pace.Open() {
			due = r.began + r.Pace.Due(int(r.sent))
		}
		r.out = r.Command(r.out, int(r.sent), due)
		r.sent++
	}
	r.flush()
	if !r.blocked {
		r.loop.At(0, r.more) // after the replies that have come
	}
}

func (r *pipe) flush() {
	n, err := loop.Write(r.fd, r.out)
	if err != nil && err != unix.EAGAIN {
		r.fail(err)
		return
	}
	r.out = append(r.out[:0], r.out[n:]...)
	was := r.blocked
	r.blocked = len(r.out) > 0
	if r.blocked != was {
		events := uint32(loop.Reading)
		if r.blocked {
			events |= unix.EPOLLOUT
		}
		_ = r.loop.Change(r.fd, events)
	}
}

// Ready is called by the loop.
func (r *pipe) Ready(events uint32) {
	if events&unix.EPOLLOUT != 0 && r.blocked {
		r.flush()
		r.more()
	}
	if r.fd >= 0 {
		loop.Drain(r.fd, events, r.buf, r.take)
	}
}

// take is called with what was read; false: no more of it.
func (r *pipe) take(b []byte, err error) bool {
	if err == nil {
		r.in = append(r.in, b...)
		var replies, used int
		replies, used, err = wire.CountIntegers(r.in)
		r.acked += int64(replies)
		r.in = r.in[:copy(r.in, r.in[used:])]
	}
	if err != nil {
		r.fail(err)
		r.close()
	}
	return err == nil
}
