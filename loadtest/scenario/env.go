//go:build linux

// Package scenario holds the load scenarios, one per file. They speak only the wire
// protocol.
package scenario

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"herald/loadtest/clients"
	"herald/loadtest/loop"
	"herald/loadtest/measure"
	"herald/loadtest/target"
	"herald/loadtest/wire"
)

// Options of a scenario, with their command-line flags. A scenario ignores those it
// does not use.
type Options struct {
	Users       int           `group:"Load" placeholder:"N" help:"Users to publish to, with one socket each."`
	Connections int           `group:"Load" placeholder:"N" help:"Sockets (idle, connect, fanout, storm)."`
	Publishers  int           `group:"Load" placeholder:"N" help:"HTTP connections that publish."`
	Message     int           `group:"Load" placeholder:"BYTES" help:"Size of a message (default 200)."`
	Rate        float64       `group:"Load" placeholder:"N" help:"Requests or connects per second on an open-loop schedule (default: as many as possible)."`
	WarmUp      time.Duration `group:"Load" placeholder:"TIME" help:"Warm-up before the measurement."`
	Duration    time.Duration `group:"Load" placeholder:"TIME" help:"Duration of the measurement in each run."`
	Concurrency int           `group:"Load" placeholder:"N" help:"Sockets that may be connecting at the same time."`
	InFlight    int           `group:"Load" placeholder:"N" help:"Broadcasts in flight (fanout)."`
	Window      int           `group:"Load" placeholder:"N" help:"Messages in flight from Redis to the sockets (redis)."`
	Churn       float64       `group:"Load" placeholder:"N" help:"Sockets per second that drop and resume (mix, soak)."`
	Slow        int           `group:"Load" placeholder:"N" help:"Sockets that stop reading (slow)."`
	Loops       int           `group:"Load" placeholder:"N" help:"Receiving threads (default: one per four cores)."`

	// Hold is called before idle sockets are measured, when they are open and used.
	// Optional.
	Hold func(context.Context) error `kong:"-"`
}

// Env is a server with the event loops that a scenario needs.
type Env struct {
	Server *target.Server
	phase  func(what string, takes time.Duration)

	readers []*loop.Loop // of the sockets
	sender  *loop.Loop   // of the publishers
	random  *rand.Rand   // owned by the sender's thread

	patience time.Duration       // a message that has not arrived this long after the last one is lost
	confined *target.Confinement // nil: not confined
}

// NewEnv starts the loops. phase is called at the start of each phase with its
// estimated duration.
func NewEnv(s *target.Server, loops int, phase func(what string, takes time.Duration)) (*Env, error) {
	if loops == 0 {
		loops = max(1, runtime.NumCPU()/4)
	}
	st := &Env{Server: s, phase: phase, patience: time.Second, random: rand.New(rand.NewPCG(1, 2))}
	var err error
	if st.sender, err = loop.New(); err != nil {
		return nil, err
	}
	for range loops {
		l, err := loop.New()
		if err != nil {
			st.Close()
			return nil, err
		}
		st.readers = append(st.readers, l)
	}
	return st, nil
}

// Close stops the loops, not the server.
func (st *Env) Close() {
	for _, l := range st.readers {
		l.Close()
	}
	st.sender.Close()
}

// coalesceInterval is the time between turns of a receiving thread at maximum load,
// where full queues dominate the latencies.
const coalesceInterval = time.Millisecond

// yieldToServer makes the load generator yield to the server when Rate is 0: its
// receiving threads coalesce their turns, and its threads lose their priority over
// the server's. Clients on other machines would not compete for its CPUs either. At
// a fixed rate, latency is the subject, and nothing changes. stop reverts it.
func (st *Env) yieldToServer(o Options) (stop func()) {
	if o.Rate > 0 {
		return func() {}
	}
	set := func(interval time.Duration, nice int) {
		for _, l := range st.readers {
			l.Coalesce(interval)
			l.Nice(nice)
		}
		st.sender.Nice(nice)
	}
	set(coalesceInterval, 0)
	return func() { set(0, loop.Urgent) }
}

// Confine pins the server, its Redis and this program to one CPU that is kept awake,
// until release is called.
func (st *Env) Confine() (release func(), err error) {
	p := st.processes()
	c, err := target.Confine(slices.Concat([]int{os.Getpid()}, p.Server, p.Redis, p.Others))
	if err != nil {
		return nil, err
	}
	st.confined = c
	return func() {
		st.confined = nil
		c.Release()
	}, nil
}

// receiver returns the node that sockets are opened on.
func (st *Env) receiver() *target.Server {
	if st.Server.DeliveryNode != nil {
		return st.Server.DeliveryNode
	}
	return st.Server
}

func (st *Env) clients(o clients.Options) (*clients.Set, error) {
	r := st.receiver()
	return clients.New(r.Addr, r.Dialect, st.readers, o)
}

// users returns the users 0 to n-1.
func users(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}

// open connects a new set of sockets. It fails unless all of them open.
func (st *Env) open(ctx context.Context, o clients.Options, list []int) (*clients.Set, error) {
	if err := st.prepare(ctx, list); err != nil {
		return nil, err
	}
	c, err := st.clients(o)
	if err != nil {
		return nil, err
	}
	st.phase(fmt.Sprintf("connecting %d sockets", len(list)), time.Duration(len(list))*200*time.Microsecond)
	a := c.Connect(ctx, clients.ConnectPlan{Users: list})
	if a.Failed > 0 {
		c.Close()
		return nil, fmt.Errorf("%d of %d sockets could not be opened: %w", a.Failed, len(list), a.Err)
	}
	if err := target.Sleep(ctx, st.receiver().ReadyDelay()); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// withUsers opens one socket per user for measured.
func (st *Env) withUsers(ctx context.Context, o Options, measured func(context.Context, *clients.Set, Options) (*measure.Run, error)) (*measure.Run, error) {
	c, err := st.open(ctx, clients.Options{}, users(o.Users))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return measured(ctx, c, o)
}

func (st *Env) prepare(ctx context.Context, list []int) error {
	most := 0
	for _, u := range list {
		most = max(most, u+1)
	}
	st.phase("creating sessions", time.Duration(most)*200*time.Microsecond)
	return st.Server.Prepare(ctx, most)
}

// publication returns a request function that publishes a stamped message to the
// user that user returns.
func (st *Env) publication(message int, user func() int) func([]byte, int, time.Duration) []byte {
	t := wire.NewTemplate(st.Server.Notify(st.Server.Addr, wire.Message(message)))
	return func(dst []byte, i int, due time.Duration) []byte {
		return t.Append(dst, user(), wire.Stamp{Due: due, Number: uint32(i)})
	}
}

// anyOf returns a random one of n users. To be called on the sender's thread.
func (st *Env) anyOf(n int) func() int { return func() int { return st.random.IntN(n) } }

func (st *Env) caller(connections int) (*clients.Caller, error) {
	return clients.NewCaller(st.sender, st.Server.Addr, connections)
}

// spareFiles is the number of descriptors reserved for anything but sockets.
const spareFiles = 256

// Fit lowers the number of sockets to the limit of open files of this process, which
// the server inherits; note reports it. Go programs and the servers raise the soft
// limit to the hard one.
func (o Options) Fit() (_ Options, note string) {
	limit := OpenFiles()
	if most := limit - spareFiles; max(o.Users, o.Connections) > most {
		note = fmt.Sprintf("%d sockets instead of %d: the limit of open files is %d (ulimit -Hn).", most, max(o.Users, o.Connections), limit)
		o.Users, o.Connections = min(o.Users, most), min(o.Connections, most)
	}
	return o, note
}

// OpenFiles returns the limit of descriptors of this process.
func OpenFiles() int {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 1 << 30
	}
	return int(min(r.Max, 1<<30))
}
