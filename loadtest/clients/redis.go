//go:build linux

package clients

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"herald/loadtest/loop"
	"herald/loadtest/measure"
	"herald/loadtest/wire"
)

// RedisPublisher publishes to Redis over one connection, many commands per write.
// A window bounds the messages in flight between Redis and the sockets.
type RedisPublisher struct {
	Addr     string                                            // of Redis
	Command  func(dst []byte, i int, due time.Duration) []byte // appends the i-th command; on the loop's thread
	Received func() int64                                      // messages the sockets have received since their start
	Window   int64                                             // maximum of messages in flight
	Schedule measure.Schedule                                  // when each is due; default: as soon as the window allows
	Batch    int                                               // commands per write

	patience time.Duration // how long drain waits for the next message; default 1 s
}

// RedisResult is the result of a RedisPublisher.
type RedisResult struct {
	Sent   int64
	Lost   int64              // messages the sockets did not receive
	Unsent *measure.Histogram // waiting time of messages that were due and never sent, because the window was full
	Err    error
}

// redisPublisher is a RedisPublisher in progress. Owned by the loop's thread.
type redisPublisher struct {
	RedisPublisher
	loop    *loop.Loop
	fd      int
	out, in []byte
	buf     []byte // read buffer
	blocked bool   // the kernel has not accepted all of out
	sent    int64
	acked   int64
	base    int64 // Received at the start
	began   time.Duration
	limit   int64 // messages to send in all; negative: not known yet
	err     error
	done    chan struct{}
}

// Run publishes for the duration d, then waits for the messages in flight.
func (p RedisPublisher) Run(ctx context.Context, l *loop.Loop, d time.Duration) RedisResult {
	r := &redisPublisher{RedisPublisher: p, loop: l, fd: -1, buf: make([]byte, 64<<10), base: p.Received(), limit: -1, done: make(chan struct{})}
	if p.Schedule.Open() {
		r.limit = int64(p.Schedule.Count(d))
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
		if !p.Schedule.Open() {
			r.limit = r.sent
		}
	})
	r.drain(ctx) // also sends what is due
	result := RedisResult{Unsent: measure.NewHistogram()}
	l.Call(func() {
		r.close()
		result.Sent, result.Lost, result.Err = r.sent, r.sent-(p.Received()-r.base), r.err
		for i := r.sent; i < r.limit; i++ {
			result.Unsent.Record(loop.Now() - r.began - p.Schedule.Due(int(i)))
		}
	})
	return result
}

// drain waits until everything is received, or nothing has arrived for patience.
func (r *redisPublisher) drain(ctx context.Context) {
	patience := cmp.Or(r.patience, time.Second)
	for last, since := int64(-1), time.Now(); ctx.Err() == nil && time.Since(since) < patience; time.Sleep(5 * time.Millisecond) {
		var all int64
		var failed bool
		r.loop.Call(func() { all, failed = r.limit, r.err != nil })
		got := r.Received() - r.base
		if got >= all || failed {
			return
		}
		if got != last {
			last, since = got, time.Now()
		}
	}
}

func (r *redisPublisher) start() {
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

func (r *redisPublisher) fail(err error) {
	if r.err == nil {
		r.err = fmt.Errorf("redis: %w", err)
		close(r.done)
	}
}

func (r *redisPublisher) close() {
	if r.fd >= 0 {
		r.loop.Forget(r.fd)
		_ = unix.Close(r.fd)
		r.fd = -1
	}
}

// more sends while the window allows, and polls a full window.
func (r *redisPublisher) more() {
	if r.err != nil || r.blocked || r.fd < 0 || r.sent == r.limit {
		return
	}
	now := loop.Now()
	n := r.Batch
	if r.Schedule.Open() {
		if n = min(n, r.Schedule.Count(now-r.began+1)-int(r.sent)); n <= 0 {
			r.loop.At(r.began+r.Schedule.Due(int(r.sent)), r.more)
			return
		}
	}
	if room := r.Window - (r.sent - (r.Received() - r.base)); room < int64(n) || r.sent-r.acked > r.Window {
		r.loop.At(now+retry, r.more)
		return
	}
	for i := 0; i < n && r.sent != r.limit; i++ {
		due := now
		if r.Schedule.Open() {
			due = r.began + r.Schedule.Due(int(r.sent))
		}
		r.out = r.Command(r.out, int(r.sent), due)
		r.sent++
	}
	r.flush()
	if !r.blocked {
		r.loop.At(0, r.more) // after the replies that have arrived
	}
}

func (r *redisPublisher) flush() {
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
func (r *redisPublisher) Ready(events uint32) {
	if events&unix.EPOLLOUT != 0 && r.blocked {
		r.flush()
		r.more()
	}
	if r.fd >= 0 {
		loop.Drain(r.fd, events, r.buf, r.take)
	}
}

// take handles what was read. It returns false after an error.
func (r *redisPublisher) take(b []byte, err error) bool {
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
