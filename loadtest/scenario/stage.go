//go:build linux

// Package scenario is what is done to a server: one file for each scenario. All
// of them speak only the wire protocol.
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

	"herald/loadtest/crowd"
	"herald/loadtest/loop"
	"herald/loadtest/target"
	"herald/loadtest/wire"
)

// Options are what a scenario may be told; what it does not use is ignored.
type Options struct {
	Users       int           // who are published to, one socket each
	Connections int           // sockets, where their number is the subject
	Publishers  int           // HTTP connections that publish
	Message     int           // bytes in a message
	Rate        float64       // a second; 0: as many as possible
	WarmUp      time.Duration // before anything is measured
	Duration    time.Duration // of what is measured
	Abreast     int           // sockets that are being opened at once
	InFlight    int           // broadcasts to one user at once
	Window      int           // messages on their way from Redis to the sockets
	Churn       float64       // sockets that are dropped and come back, a second
	Slow        int           // sockets that stop reading
	Loops       int           // threads that receive; default 1 for each four cores

	// Hold is called when idle sockets are open and used, before what they cost
	// is measured. Default: nothing is.
	Hold func(context.Context) error
}

// Stage is a server with everything around it that a scenario needs.
type Stage struct {
	Server *target.Server
	tell   func(what string, takes time.Duration)

	readers []*loop.Loop // of the sockets
	sender  *loop.Loop   // of whoever publishes
	random  *rand.Rand   // owned by the sender's thread

	confined *target.Confinement // nil: everything may run everywhere
}

// NewStage starts the loops. tell is called at the start of each phase, with
// about how long it will take.
func NewStage(s *target.Server, loops int, tell func(what string, takes time.Duration)) (*Stage, error) {
	if loops == 0 {
		loops = max(1, runtime.NumCPU()/4)
	}
	st := &Stage{Server: s, tell: tell, random: rand.New(rand.NewPCG(1, 2))}
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

// Close ends the loops; not the server.
func (st *Stage) Close() {
	for _, l := range st.readers {
		l.Close()
	}
	st.sender.Close()
}

// turnsApart is how far apart the turns of receiving threads are where a server
// is driven as hard as it goes; latencies are then those of full queues.
const turnsApart = time.Millisecond

// standBack is called before a server is driven: where that is as hard as it goes,
// receiving threads see to their sockets in turns, and no thread of ours runs
// before the server's, which clients on machines of their own would not do either.
// What is sent on a schedule has latencies for its subject, and nothing is changed.
// The function it returns ends it.
func (st *Stage) standBack(o Options) (stop func()) {
	if o.Rate > 0 {
		return func() {}
	}
	set := func(apart time.Duration, nice int) {
		for _, l := range st.readers {
			l.Coalesce(apart)
			l.Nice(nice)
		}
		st.sender.Nice(nice)
	}
	set(turnsApart, 0)
	return func() { set(0, loop.Urgent) }
}

// Confine lets the server, its Redis and this program share one processor that
// does not sleep, until release is called.
func (st *Stage) Confine() (release func(), err error) {
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

// receiver is the node that sockets are opened on.
func (st *Stage) receiver() *target.Server {
	if st.Server.Delivers != nil {
		return st.Server.Delivers
	}
	return st.Server
}

func (st *Stage) crowd(o crowd.Options) (*crowd.Crowd, error) {
	r := st.receiver()
	return crowd.New(r.Addr, r.Dialect, st.readers, o)
}

// users are 0 to n-1.
func users(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}

// open connects users on a new crowd; all of them, or it is an error.
func (st *Stage) open(ctx context.Context, o crowd.Options, list []int) (*crowd.Crowd, error) {
	if err := st.prepare(ctx, list); err != nil {
		return nil, err
	}
	c, err := st.crowd(o)
	if err != nil {
		return nil, err
	}
	st.tell(fmt.Sprintf("connecting %d sockets", len(list)), time.Duration(len(list))*200*time.Microsecond)
	a := c.Connect(ctx, crowd.Arrivals{Users: list})
	if a.Failed > 0 {
		c.Close()
		return nil, fmt.Errorf("%d of %d sockets could not be opened: %w", a.Failed, len(list), a.Err)
	}
	if err := pause(ctx, st.receiver().Settles()); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (st *Stage) prepare(ctx context.Context, list []int) error {
	most := 0
	for _, u := range list {
		most = max(most, u+1)
	}
	st.tell("making sessions", time.Duration(most)*200*time.Microsecond)
	return st.Server.Prepare(ctx, most)
}

// publication makes requests that publish one stamped message to one user, as
// user says.
func (st *Stage) publication(message int, user func() int) func([]byte, int, time.Duration) []byte {
	t := wire.NewTemplate(st.Server.Notify(st.Server.Addr, wire.Message(message)))
	return func(dst []byte, i int, due time.Duration) []byte {
		return t.Append(dst, user(), wire.Stamp{Due: due, Number: uint32(i)})
	}
}

// anyOf picks one of n users; on the sender's thread.
func (st *Stage) anyOf(n int) func() int { return func() int { return st.random.IntN(n) } }

func (st *Stage) caller(connections int) (*crowd.Caller, error) {
	return crowd.NewCaller(st.sender, st.Server.Addr, connections)
}

// spareFiles are the descriptors that are needed for anything but sockets.
const spareFiles = 256

// Fit lowers the numbers of sockets to what this process may open, and the
// server, which is started with the same limit; note says so. Go raises the soft
// limit to the hard one when a program starts, and so do the servers.
func (o Options) Fit() (_ Options, note string) {
	limit := OpenFiles()
	if most := limit - spareFiles; max(o.Users, o.Connections) > most {
		note = fmt.Sprintf("%d sockets instead of %d: the limit of open files is %d (ulimit -Hn).", most, max(o.Users, o.Connections), limit)
		o.Users, o.Connections = min(o.Users, most), min(o.Connections, most)
	}
	return o, note
}

// OpenFiles is how many descriptors this process may have.
func OpenFiles() int {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 1 << 30
	}
	return int(min(r.Max, 1<<30))
}

// pause waits, or ends early with the context.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
