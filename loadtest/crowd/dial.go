//go:build linux

package crowd

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

// Arrivals say who connects when.
type Arrivals struct {
	Users   []int                // of each socket
	Since   func(user int) int64 // where it resumes. Default: from now on
	Pace    measure.Pace         // default: as fast as Abreast allows
	Abreast int                  // sockets that are being opened at once, in a closed loop; default 32
	Timeout time.Duration        // for all of them; default 60 s
}

// Arrived is what became of Arrivals.
type Arrived struct {
	Opened, Failed int
	Took           time.Duration      // from the first one due to the last one open
	Latency        *measure.Histogram // from when it was due until it was open
	Err            error              // of the first that failed
}

// Connect opens sockets and waits until each is open or has failed.
func (c *Crowd) Connect(ctx context.Context, a Arrivals) Arrived {
	if a.Since == nil {
		a.Since = func(int) int64 { return -1 }
	}
	if a.Abreast == 0 {
		a.Abreast = 32
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
	sum := Arrived{Latency: measure.NewHistogram()}
	for _, d := range dialers {
		select {
		case <-d.done:
		case <-ctx.Done():
		}
		d.shard.loop.Call(func() { d.finish(context.Cause(ctx), &sum) })
	}
	return sum
}

// dialer opens one shard's part of the arrivals. Owned by the shard's thread.
type dialer struct {
	shard   *shard
	a       Arrivals
	began   time.Duration
	next    int // index into a.Users
	step    int
	abreast int

	active   map[*Socket]struct{}
	waiting  bool // a timer is set
	finished bool
	result   Arrived
	done     chan struct{} // closed when nothing is left to open
	once     sync.Once
}

func newDialer(s *shard, a Arrivals, began time.Duration, first, step int) *dialer {
	return &dialer{
		shard: s, a: a, began: began, next: first, step: step, abreast: max(1, a.Abreast/step),
		active: map[*Socket]struct{}{}, done: make(chan struct{}), result: Arrived{Latency: measure.NewHistogram()},
	}
}

// openLoopAbreast bounds how many are being opened at once on a schedule that
// the server does not keep up with; they are still measured from when they were due.
const openLoopAbreast = 2048

// more opens what is due.
func (d *dialer) more() {
	for !d.finished && d.next < len(d.a.Users) {
		now := loop.Now()
		due := now
		if d.a.Pace.Open() {
			if due = d.began + d.a.Pace.Due(d.next); due > now {
				d.wait(due)
				return
			}
			if len(d.active) >= openLoopAbreast/d.step {
				return // the next end of one calls
			}
		} else if len(d.active) >= d.abreast {
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

// later opens more on the next turn: a failure may come from within open.
func (d *dialer) later() {
	d.shard.loop.At(0, d.more)
}

func (d *dialer) ended(s *Socket) bool {
	_, ok := d.active[s]
	delete(d.active, s)
	return ok
}

// finish gives up on what is not open yet and adds the result to sum.
func (d *dialer) finish(cause error, sum *Arrived) {
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

// addresses counts the source addresses given out, over all crowds: each socket
// has one that none before it had, so that neither ports nor limits per address
// run out.
var addresses atomic.Uint32

// sourceAddress is one of 16 million in 127.0.0.0/8, none of which is 127.0.x.x.
func sourceAddress() [4]byte {
	n := addresses.Add(1)
	return [4]byte{127, byte(1 + n/(256*254)%254), byte(n / 254), byte(1 + n%254)}
}

// connect begins to connect. On the loopback network the kernel often is done
// at once.
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
	if n := s.shard.crowd.o.ReceiveBuffer; n > 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, n); err != nil {
			return fmt.Errorf("SO_RCVBUF: %w", err)
		}
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if !s.shard.crowd.local {
		return nil
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: sourceAddress()}); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	return nil
}

// connected is the end of a connect that took its time.
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
	c := s.shard.crowd
	s.write(c.speaker.Upgrade(c.addr, s.User, s.since))
}

// upgraded reads the handshake's response; what follows it is frames already.
func (s *Socket) upgraded(b []byte) (rest []byte, done bool) {
	if len(s.head) > 0 {
		b = append(s.head, b...)
	}
	r, n, err := wire.CutResponse(b)
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
	if !s.shard.crowd.speaker.Greets() {
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
