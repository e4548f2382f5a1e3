//go:build linux

package scenario

import (
	"fmt"
	"runtime"
	"slices"
	"time"

	"herald/loadtest/crowd"
	"herald/loadtest/loop"
	"herald/loadtest/measure"
)

// The names of the numbers that thresholds and tables look for.
const (
	Rate          = "rate"            // deliveries or connects a second
	CPUPerMessage = "cpu per message" // of the server, for each delivery
	RedisPerMsg   = "redis cpu per message"
	CPUPerConnect = "cpu per connect"
	RedisPerConn  = "redis cpu per connect"
	RSSPerConn    = "rss per connection"
	CPUPerIdle    = "cpu per idle connection" // seconds a second
	Lost          = "lost"                    // messages
	Errors        = "errors"                  // requests and connects that failed
	Duplicates    = "duplicates"              // messages that came again
	Disorder      = "out of order"            // messages that did not follow the one before
	Delivery      = "delivery"                // latency until a socket has it
	Answer        = "answer"                  // latency of the publisher's answer
	Connecting    = "connect"                 // latency until a socket is open
	SocketsLost   = "sockets lost"
	RSSGrowth     = "rss growth"
	GoroutineRise = "goroutine growth"
	FileGrowth    = "descriptor growth"
	WritePerFrame = "cpu per raw write"
	BroadcastTook = "broadcast" // latency until the last socket has it
	CaughtUp      = "caught up after"
	BackAfter     = "all back after"
	SlowEnded     = "slow sockets ended"
)

// observation measures one phase.
type observation struct {
	stage   *Stage
	usage   func() (measure.Usage, error)
	samples func() []measure.Sample
	loads   []loop.Load
}

// observe begins to measure the receiving server, Redis and this process.
func (st *Stage) observe(every time.Duration, counts func() measure.Counts) (*observation, error) {
	p := st.processes()
	o := &observation{stage: st}
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

// processes are those of the receiving server; one that only publishes is among
// the others.
func (st *Stage) processes() measure.Processes {
	p := st.receiver().Processes
	if st.Server.Delivers != nil {
		p.Others = slices.Clone(st.Server.Processes.Server)
	}
	if st.confined != nil {
		p.Others = append(p.Others, st.confined.Idler)
	}
	return p
}

// cores are how many processors there are for all of this.
func (st *Stage) cores() int {
	if st.confined != nil {
		return 1
	}
	return runtime.NumCPU()
}

func (st *Stage) loops() []*loop.Loop { return append([]*loop.Loop{st.sender}, st.readers...) }

// cost names what an event costs whom.
type cost struct{ server, redis string }

var (
	perMessage = cost{CPUPerMessage, RedisPerMsg}
	perConnect = cost{CPUPerConnect, RedisPerConn}
)

// end fills the run with what was measured, for that many events.
func (o *observation) end(run *measure.Run, c cost, events int64) error {
	u, err := o.usage()
	run.Timeline = append(run.Timeline, o.samples()...)
	if err != nil {
		return fmt.Errorf("the server's cost: %w", err)
	}
	s := u.Wall.Seconds()
	run.Add(Rate, measure.PerSecond, float64(events)/s)
	p := o.stage.processes()
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
	o.judge(run, u)
	return nil
}

func share(part, of time.Duration) float64 {
	if of <= 0 {
		return 0
	}
	return float64(part) / float64(of)
}

// When the load generator, the machine or its other users are said to have been
// in the way.
const (
	saturated = 0.9  // of a thread, or of all cores
	disturbed = 0.15 // cores
)

// judge says in plain words whether the load generator was in the way, or
// something else that the server is not to blame for.
func (o *observation) judge(run *measure.Run, u measure.Usage) {
	computed, busy := 0.0, 0.0
	for i, l := range o.stage.loops() {
		load := l.Load().Minus(o.loads[i])
		computed, busy = max(computed, share(load.CPU, load.Of)), max(busy, share(load.Busy, load.Of))
	}
	wall := u.Wall.Seconds()
	own, strangers := u.Own.Total.Seconds()/wall, u.Strangers.Seconds()/wall
	run.Add("load generator cpu", measure.Cores, own)
	run.Add("load generator's busiest thread", measure.Share, busy)
	run.Add("other programs' cpu", measure.Cores, strangers)
	switch {
	case computed >= saturated:
		run.Note("The load generator was the bottleneck: its busiest thread computed all the time. The server may do better than this says; try more --loops.")
	case busy >= saturated:
		run.Note("The load generator was the bottleneck: its busiest thread always had something to do, and waited for a core to do it. The server may do better than this says.")
	}
	if !o.local() {
		return
	}
	if strangers >= disturbed {
		run.Note("Other programs were using this machine: the server would do better alone.")
	}
	ours := own + (u.Server.Total+u.Redis.Total).Seconds()/wall
	if ours+strangers >= saturated*float64(o.stage.cores()) {
		run.Note("All cores were in use, some by the load generator: the server would do better with a machine of its own.")
	}
}

// local reports whether the server is on this machine, as far as is known.
func (o *observation) local() bool { return len(o.stage.processes().Server) > 0 }

// slip adds how late messages were sent, and says so if that shows in what was
// measured.
func slip(run *measure.Run, a crowd.Answers) {
	if a.Slip.Count() == 0 {
		return
	}
	p99 := a.Slip.Quantile(0.99)
	run.Add("sent late p99", measure.Seconds, p99.Seconds())
	measured, ok := run.Get(Delivery + " p99")
	if ok && p99 > 500*time.Microsecond && p99.Seconds() > measured.Value/4 {
		run.Note("The load generator was late: one message in a hundred was sent %s or more after it was due. Latencies include that; the server may do better than they say.", measure.Seconds.Format(p99.Seconds()))
	}
}
