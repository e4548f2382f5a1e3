//go:build linux

package scenario

import (
	"fmt"
	"runtime"
	"slices"
	"time"

	"herald/loadtest/clients"
	"herald/loadtest/loop"
	"herald/loadtest/measure"
)

// Names of the metrics that thresholds and tables use.
const (
	Rate          = "rate"            // deliveries or connects per second
	CPUPerMessage = "cpu per message" // of the server, per delivery
	RedisPerMsg   = "redis cpu per message"
	CPUPerConnect = "cpu per connect"
	RedisPerConn  = "redis cpu per connect"
	RSSPerConn    = "rss per connection"
	CPUPerIdle    = "cpu per idle connection" // seconds per second
	Lost          = "lost"                    // messages
	Errors        = "errors"                  // failed requests and connects
	Duplicates    = "duplicates"              // messages that arrived again
	Disorder      = "out of order"            // messages that arrived out of order
	Delivery      = "delivery"                // latency until a socket has the message
	Response      = "response"                // latency of the response to a publish
	Connecting    = "connect"                 // latency until a socket is open
	SocketsLost   = "sockets lost"
	RSSGrowth     = "rss growth"
	GoroutineRise = "goroutine growth"
	FileGrowth    = "descriptor growth"
	WritePerFrame = "cpu per raw write"
	BroadcastTook = "broadcast" // latency until the last socket has the message
	CaughtUp      = "caught up after"
	BackAfter     = "all back after"
	SlowClosed    = "slow sockets closed"
)

// observation measures the cost of one phase.
type observation struct {
	env     *Env
	usage   func() (measure.Usage, error)
	samples func() []measure.Sample
	loads   []loop.Load
}

// observe starts to measure the delivering server, Redis and this process.
func (st *Env) observe(every time.Duration, counts func() measure.Counts) (*observation, error) {
	p := st.processes()
	o := &observation{env: st}
	for _, l := range st.loops() {
		o.loads = append(o.loads, l.Load())
	}
	o.samples = p.Watch(every, counts)
	var err error
	if o.usage, err = p.Start(); err != nil {
		o.samples()
		return nil, fmt.Errorf("the server's cost: %w", err)
	}
	return o, nil
}

// processes returns those of the delivering server. A server that only publishes
// counts under Others.
func (st *Env) processes() measure.Processes {
	p := st.receiver().Processes
	if st.Server.DeliveryNode != nil {
		p.Others = slices.Clone(st.Server.Processes.Server)
	}
	if st.confined != nil {
		p.Others = append(p.Others, st.confined.Spinner)
	}
	return p
}

// cores returns the number of CPUs that all processes share.
func (st *Env) cores() int {
	if st.confined != nil {
		return 1
	}
	return runtime.NumCPU()
}

func (st *Env) loops() []*loop.Loop { return append([]*loop.Loop{st.sender}, st.readers...) }

// cost names the metrics of the CPU per event.
type cost struct{ server, redis string }

var (
	perMessage = cost{CPUPerMessage, RedisPerMsg}
	perConnect = cost{CPUPerConnect, RedisPerConn}
)

// end stops the observation and adds its metrics, for that number of events.
func (o *observation) end(run *measure.Run, c cost, events int64) error {
	u, err := o.usage()
	run.Timeline = append(run.Timeline, o.samples()...)
	if err != nil {
		return fmt.Errorf("the server's cost: %w", err)
	}
	s := u.Wall.Seconds()
	run.Add(Rate, measure.PerSecond, float64(events)/s)
	p := o.env.processes()
	if events > 0 && len(p.Server) > 0 {
		run.Add(c.server, measure.Seconds, u.Server.Total.Seconds()/float64(events))
	}
	if events > 0 && len(p.Redis) > 0 {
		run.Add(c.redis, measure.Seconds, u.Redis.Total.Seconds()/float64(events))
	}
	if len(p.Server) > 0 {
		run.Add("server cpu", measure.Cores, u.Server.Total.Seconds()/s)
		run.Add("server cpu in the kernel", measure.Share, share(u.Server.System, u.Server.User+u.Server.System))
	}
	if len(p.Redis) > 0 {
		run.Add("redis cpu", measure.Cores, u.Redis.Total.Seconds()/s)
	}
	o.addNotes(run, u)
	return nil
}

func share(part, of time.Duration) float64 {
	if of <= 0 {
		return 0
	}
	return float64(part) / float64(of)
}

// Limits above which a note says that the load generator, the machine or other
// programs limited the result.
const (
	saturated = 0.9  // of a thread, or of all cores
	disturbed = 0.15 // cores
)

// addNotes adds a note if the load generator or something else that is not the
// server limited the result.
func (o *observation) addNotes(run *measure.Run, u measure.Usage) {
	computed, busy := 0.0, 0.0
	for i, l := range o.env.loops() {
		load := l.Load().Minus(o.loads[i])
		computed, busy = max(computed, share(load.CPU, load.Of)), max(busy, share(load.Busy, load.Of))
	}
	wall := u.Wall.Seconds()
	own, others := u.Own.Total.Seconds()/wall, u.OtherPrograms.Seconds()/wall
	run.Add("load generator cpu", measure.Cores, own)
	run.Add("load generator's busiest thread", measure.Share, busy)
	run.Add("other programs' cpu", measure.Cores, others)
	switch {
	case computed >= saturated:
		run.Note("The load generator was the bottleneck: its busiest thread computed all the time. The server may be faster than measured; try more --loops.")
	case busy >= saturated:
		run.Note("The load generator was the bottleneck: its busiest thread always had work, and waited for a core. The server may be faster than measured.")
	}
	if !o.local() {
		return
	}
	if others >= disturbed {
		run.Note("Other programs were using this machine: the server would be faster without them.")
	}
	ours := own + (u.Server.Total+u.Redis.Total).Seconds()/wall
	if ours+others >= saturated*float64(o.env.cores()) {
		run.Note("All cores were in use, some by the load generator: the server would be faster on a separate machine.")
	}
}

// local reports whether the server is known to run on this machine.
func (o *observation) local() bool { return len(o.env.processes().Server) > 0 }

// addSendDelay adds the delay of the load generator itself, and a note if it
// affects the latencies.
func addSendDelay(run *measure.Run, a clients.Answers) {
	if a.SendDelay.Count() == 0 {
		return
	}
	p99 := a.SendDelay.Quantile(0.99)
	run.Add("sent late p99", measure.Seconds, p99.Seconds())
	measured, ok := run.Get(Delivery + " p99")
	if ok && p99 > 500*time.Microsecond && p99.Seconds() > measured.Value/4 {
		run.Note("The load generator was late: one message in a hundred was sent %s or more after it was due. Latencies include that delay; the server may be faster than measured.", measure.Seconds.Format(p99.Seconds()))
	}
}
