//go:build linux

package clients

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"herald/loadtest/loop"
	"herald/loadtest/measure"
	"herald/loadtest/wire"
)

// ConnectPlan says which users connect, and when.
type ConnectPlan struct {
	Users       []int                // one entry per socket
	Since       func(user int) int64 // id to resume after; negative: none. Default: none
	Schedule    measure.Schedule     // default: as fast as Concurrency allows
	Concurrency int                  // sockets connecting at the same time, without a schedule; default 32
	Timeout     time.Duration        // for the whole plan; default 60 s
}

// ConnectResult is the result of a ConnectPlan.
type ConnectResult struct {
	Opened, Failed int
	Took           time.Duration      // from the start until the last socket was open
	Latency        *measure.Histogram // from due to open
	Err            error              // the first failure
}

// Connect opens sockets and waits until each is open or has failed.
func (c *Set) Connect(ctx context.Context, a ConnectPlan) ConnectResult {
	if a.Since == nil {
		a.Since = func(int) int64 { return -1 }
	}
	if a.Concurrency == 0 {
		a.Concurrency = 32
	}
	if a.Timeout == 0 {
		a.Timeout = time.Minute
	}
	ctx, cancel := context.WithTimeout(ctx, a.Timeout)
	defer cancel()
	began := loop.Now()
	var dialers []*dialer
	for i, s := range c.shards {
		d := newDialer(s, a, began, i, len(c.shards))
		dialers = append(dialers, d)
		s.loop.Do(d.more)
	}
	sum := ConnectResult{Latency: measure.NewHistogram()}
	for _, d := range dialers {
		select {
		case <-d.done:
		case <-ctx.Done():
		}
		d.shard.loop.Call(func() { d.finish(context.Cause(ctx), &sum) })
	}
	return sum
}

// dialer opens one shard's part of a ConnectPlan. Owned by the shard's thread.
type dialer struct {
	shard       *shard
	a           ConnectPlan
	began       time.Duration
	next        int // index into a.Users
	step        int
	concurrency int

	active   map[*Socket]struct{}
	waiting  bool // a timer is set
	finished bool
	result   ConnectResult
	done     chan struct{} // closed when nothing is left to open
	once     sync.Once
}

func newDialer(s *shard, a ConnectPlan, began time.Duration, first, step int) *dialer {
	return &dialer{
		shard: s, a: a, began: began, next: first, step: step, concurrency: max(1, a.Concurrency/step),
		active: map[*Socket]struct{}{}, done: make(chan struct{}), result: ConnectResult{Latency: measure.NewHistogram()},
	}
}

// maxOpening bounds the sockets that are connecting at the same time on a schedule
// which the server cannot keep up with. Latency still counts from the due time.
const maxOpening = 2048

// more opens the sockets that are due.
func (d *dialer) more() {
	for !d.finished && d.next < len(d.a.Users) {
		now := loop.Now()
		due := now
		if d.a.Schedule.Open() {
			if due = d.began + d.a.Schedule.Due(d.next); due > now {
				d.wait(due)
				return
			}
			if len(d.active) >= maxOpening/d.step {
				return // the next result calls more
			}
		} else if len(d.active) >= d.concurrency {
			return
		}
		user := d.a.Users[d.next]
		d.next += d.step
		d.open(user, due)
	}
	if len(d.active) == 0 && d.next >= len(d.a.Users) {
		d.once.Do(func() { close(d.done) })
	}
}

func (d *dialer) wait(due time.Duration) {
	if d.waiting {
		return
	}
	d.waiting = true
	d.shard.loop.At(due, func() { d.waiting = false; d.more() })
}

func (d *dialer) open(user int, due time.Duration) {
	s := &Socket{User: user, shard: d.shard, dial: d, due: due, since: d.a.Since(user)}
	d.active[s] = struct{}{}
	if err := s.connect(); err != nil {
		s.phase = closed
		d.failed(s, err)
	}
}

func (d *dialer) opened(s *Socket) {
	if d.ended(s) {
		d.result.Opened++
		d.result.Latency.Record(loop.Now() - s.due)
		d.result.Took = loop.Now() - d.began
	}
	d.later()
}

func (d *dialer) failed(s *Socket, err error) {
	if d.ended(s) {
		d.result.Failed++
		if d.result.Err == nil {
			d.result.Err = err
		}
	}
	d.later()
}

// later calls more on the next turn, because failed may be called from within open.
func (d *dialer) later() {
	d.shard.loop.At(0, d.more)
}

func (d *dialer) ended(s *Socket) bool {
	_, ok := d.active[s]
	delete(d.active, s)
	return ok
}

// finish fails the sockets that are not open yet and adds the result to sum.
func (d *dialer) finish(cause error, sum *ConnectResult) {
	d.finished = true
	left := 0
	for i := d.next; i < len(d.a.Users); i += d.step {
		left++
	}
	for s := range d.active {
		s.close()
		left++
	}
	clear(d.active)
	if left > 0 && d.result.Err == nil {
		d.result.Err = fmt.Errorf("%d sockets were not opened in time: %w", left, cause)
	}
	sum.Opened += d.result.Opened
	sum.Failed += d.result.Failed + left
	sum.Took = max(sum.Took, d.result.Took)
	sum.Latency.Merge(d.result.Latency)
	if sum.Err == nil {
		sum.Err = d.result.Err
	}
}

// addresses counts the source addresses in use by all sets. Each socket gets a new
// one, so that neither ports nor limits per address run out.
var addresses atomic.Uint32

// sourceAddress returns one of 16 million addresses in 127.0.0.0/8, outside 127.0.0.0/16.
func sourceAddress() [4]byte {
	n := addresses.Add(1)
	return [4]byte{127, byte(1 + n/(256*254)%254), byte(n / 254), byte(1 + n%254)}
}

// connect starts to connect. On the loopback network it often completes at once.
func (s *Socket) connect() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	if err := s.prepare(fd); err != nil {
		_ = unix.Close(fd)
		return err
	}
	err = unix.Connect(fd, &s.shard.peer)
	if err != nil && err != unix.EINPROGRESS {
		_ = unix.Close(fd)
		return fmt.Errorf("connect: %w", err)
	}
	s.fd = fd
	s.shard.sockets[fd] = s
	events := uint32(unix.EPOLLOUT)
	if err == nil {
		events = loop.Reading
	}
	if err := s.shard.loop.Add(fd, events, s); err != nil {
		s.close()
		return err
	}
	if err == nil {
		s.upgrade()
	}
	return nil
}

func (s *Socket) prepare(fd int) error {
	if n := s.shard.set.o.ReceiveBuffer; n > 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, n); err != nil {
			return fmt.Errorf("SO_RCVBUF: %w", err)
		}
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if !s.shard.set.local {
		return nil
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: sourceAddress()}); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	return nil
}

// connected completes a connect that was in progress.
func (s *Socket) connected() {
	code, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && code != 0 {
		err = unix.Errno(code)
	}
	if err != nil {
		s.end(fmt.Errorf("connect: %w", err))
		return
	}
	if err := s.shard.loop.Change(s.fd, loop.Reading); err != nil {
		s.end(err)
		return
	}
	s.upgrade()
}

func (s *Socket) upgrade() {
	s.phase = upgrading
	c := s.shard.set
	s.write(c.speaker.Upgrade(c.addr, s.User, s.since))
}

// upgraded reads the response to the handshake and returns the frames behind it.
func (s *Socket) upgraded(b []byte) (rest []byte, done bool) {
	if len(s.head) > 0 {
		b = append(s.head, b...)
	}
	r, n, err := wire.ParseResponse(b)
	if err == nil && n == 0 {
		s.head = append([]byte(nil), b...)
		return nil, false
	}
	if err == nil {
		err = wire.Upgraded(r)
	}
	if err != nil {
		s.end(err)
		return nil, false
	}
	s.head, s.phase = nil, greeting
	if !s.shard.set.speaker.Greets() {
		s.opened()
	}
	return b[n:], true
}

func (s *Socket) opened() {
	s.phase = open
	s.shard.open.Add(1)
	s.dial.opened(s)
	s.dial = nil
}
