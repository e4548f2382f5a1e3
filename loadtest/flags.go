//go:build linux

package main

import (
	"cmp"
	"fmt"
	"time"

	"herald/loadtest/scenario"
	"herald/loadtest/target"
	"herald/loadtest/wire"
)

// serverFlags choose the server to measure.
type serverFlags struct {
	Start string `group:"Server" enum:"herald,baseline,baseline-unlimited,socketio,nchan" default:"herald" placeholder:"KIND" help:"Server to start, with a Redis: herald (default), baseline, baseline-unlimited, socketio, nchan."`

	Target   string `group:"Server" placeholder:"URL" help:"Measure this running gateway instead: http://host:port."`
	PID      int    `group:"Server" name:"pid" placeholder:"N" help:"Process of --target on this machine; its child processes count too."`
	Redis    string `group:"Server" placeholder:"URL" help:"Redis of --target: redis://host:port."`
	RedisPID int    `group:"Server" name:"redis-pid" placeholder:"N" help:"Process of that Redis on this machine."`
	Admin    string `group:"Server" placeholder:"URL" help:"Admin listener of --target, to count goroutines: http://host:port."`
	APIKey   string `group:"Server" name:"api-key" placeholder:"SECRET" help:"API key of --target, for publishing and creating sessions."`

	Program string `hidden:"" help:"Path of a built gateway."`
}

// loadFlags set the load. A zero value means the scenario's default.
type loadFlags struct {
	Users       int           `group:"Load" placeholder:"N" help:"Users to publish to, with one socket each."`
	Connections int           `group:"Load" placeholder:"N" help:"Sockets (idle, connect, fanout, storm)."`
	Publishers  int           `group:"Load" placeholder:"N" help:"HTTP connections that publish."`
	Message     int           `group:"Load" placeholder:"BYTES" help:"Size of a message (default 200)."`
	Rate        float64       `group:"Load" placeholder:"N" help:"Requests or connects per second on an open-loop schedule (default: as many as possible)."`
	WarmUp      time.Duration `group:"Load" placeholder:"TIME" help:"Warm-up before the measurement."`
	Duration    time.Duration `group:"Load" placeholder:"TIME" help:"Duration of the measurement in each run."`
	Runs        int           `group:"Load" placeholder:"N" help:"Number of runs; the report shows medians."`
	Concurrency int           `group:"Load" placeholder:"N" help:"Sockets that may be connecting at the same time."`
	InFlight    int           `group:"Load" placeholder:"N" help:"Broadcasts in flight (fanout)."`
	Window      int           `group:"Load" placeholder:"N" help:"Messages in flight from Redis to the sockets (redis)."`
	Churn       float64       `group:"Load" placeholder:"N" help:"Sockets per second that drop and resume (mix, soak)."`
	Slow        int           `group:"Load" placeholder:"N" help:"Sockets that stop reading (slow)."`
	Confine     bool          `group:"Load" help:"Run everything on one CPU that is kept awake: latencies without the time a hypervisor takes to wake idle CPUs. Not with --target."`
	Loops       int           `group:"Load" placeholder:"N" help:"Receiving threads (default: one per four cores)."`
}

// withDefaults fills in what was not given: from d, or the common defaults.
func (f loadFlags) withDefaults(d loadFlags) loadFlags {
	return loadFlags{
		Users: cmp.Or(f.Users, d.Users, 5000), Connections: cmp.Or(f.Connections, d.Connections, 5000),
		Publishers: cmp.Or(f.Publishers, d.Publishers, 32), Message: cmp.Or(f.Message, d.Message, 200),
		Rate: cmp.Or(f.Rate, d.Rate), WarmUp: cmp.Or(f.WarmUp, d.WarmUp, time.Second), Duration: cmp.Or(f.Duration, d.Duration, 5*time.Second),
		Runs: cmp.Or(f.Runs, d.Runs, 3), Concurrency: cmp.Or(f.Concurrency, d.Concurrency, 32), InFlight: cmp.Or(f.InFlight, d.InFlight, 1),
		Window: cmp.Or(f.Window, d.Window, 4096), Churn: cmp.Or(f.Churn, d.Churn, 50), Slow: cmp.Or(f.Slow, d.Slow, 10), Confine: f.Confine, Loops: f.Loops,
	}
}

func (f loadFlags) options() (scenario.Options, error) {
	if f.Message < wire.MinMessage || f.Message > 60<<10 {
		return scenario.Options{}, fmt.Errorf("%w: --message must be from %d to %d bytes", errUsage, wire.MinMessage, 60<<10)
	}
	for name, n := range map[string]int{"users": f.Users, "connections": f.Connections, "publishers": f.Publishers, "runs": f.Runs, "concurrency": f.Concurrency, "in-flight": f.InFlight, "window": f.Window} {
		if n < 1 {
			return scenario.Options{}, fmt.Errorf("%w: --%s must be at least 1", errUsage, name)
		}
	}
	if max(f.Users, f.Connections) > maxUsers || f.InFlight > maxInFlight || f.Rate < 0 {
		return scenario.Options{}, fmt.Errorf("%w: at most %d users and %d broadcasts in flight, no negative rate", errUsage, maxUsers, maxInFlight)
	}
	return scenario.Options{
		Users: f.Users, Connections: f.Connections, Publishers: f.Publishers, Message: f.Message, Rate: f.Rate, WarmUp: f.WarmUp,
		Duration: f.Duration, Concurrency: f.Concurrency, InFlight: f.InFlight, Window: f.Window, Churn: f.Churn, Slow: f.Slow, Loops: f.Loops,
	}, nil
}

const (
	maxUsers    = 1_000_000 // wire.UserID has six digits
	maxInFlight = 32        // scenario tracks twice as many broadcasts
)

// outputFlags choose where results are written.
type outputFlags struct {
	JSON  string `group:"Results" name:"json" placeholder:"FILE" help:"Write all results as JSON."`
	HTML  string `group:"Results" name:"html" placeholder:"FILE" help:"Write a self-contained page with charts."`
	Quiet bool   `group:"Results" help:"Print no progress."`
}

// existing describes --target.
func (f serverFlags) existing() target.Existing {
	return target.Existing{
		URL: f.Target, PID: f.PID, RedisURL: f.Redis, RedisPID: f.RedisPID, AdminURL: f.Admin, Key: f.APIKey,
	}
}
