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

// serverFlags say what is measured.
type serverFlags struct {
	Start string `group:"Server" enum:"herald,article,article-unlimited,socketio,nchan" default:"herald" placeholder:"KIND" help:"What to start with a Redis of its own: herald (default), article, article-unlimited, socketio, nchan."`

	Target   string `group:"Server" placeholder:"URL" help:"Measure this server instead, which runs already: http://host:port."`
	Kind     string `group:"Server" enum:"herald,article,article-unlimited,socketio,nchan" default:"herald" placeholder:"KIND" help:"What --target is: herald (default), or one of the others."`
	PID      int    `group:"Server" name:"pid" placeholder:"N" help:"Process of --target, on this machine; its children count too."`
	Redis    string `group:"Server" placeholder:"URL" help:"Redis of --target: redis://host:port."`
	RedisPID int    `group:"Server" name:"redis-pid" placeholder:"N" help:"Process of that Redis."`
	Admin    string `group:"Server" placeholder:"URL" help:"Second listener of --target, for its goroutines: http://host:port."`
	APIKey   string `group:"Server" name:"api-key" placeholder:"SECRET" help:"Backend's key of --target, for publishing and sessions."`

	Program string `hidden:"" help:"A gateway that is built already."`
}

// loadFlags say how much. What is not given is the scenario's own.
type loadFlags struct {
	Users       int           `group:"Load" placeholder:"N" help:"Users that are published to, with a socket each."`
	Connections int           `group:"Load" placeholder:"N" help:"Sockets, where their number is the subject."`
	Publishers  int           `group:"Load" placeholder:"N" help:"HTTP connections that publish."`
	Message     int           `group:"Load" placeholder:"BYTES" help:"Size of a message (default 200)."`
	Rate        float64       `group:"Load" placeholder:"N" help:"Requests, or connects, a second on an open-loop schedule; else as many as possible."`
	WarmUp      time.Duration `group:"Load" placeholder:"TIME" help:"Before anything is measured."`
	Duration    time.Duration `group:"Load" placeholder:"TIME" help:"Of what is measured, in each run."`
	Runs        int           `group:"Load" placeholder:"N" help:"Numbers are medians of so many runs."`
	Abreast     int           `group:"Load" placeholder:"N" help:"Sockets that are being opened at once."`
	InFlight    int           `group:"Load" placeholder:"N" help:"Broadcasts at once (fanout)."`
	Window      int           `group:"Load" placeholder:"N" help:"Messages at once on their way from Redis to the sockets (redis)."`
	Churn       float64       `group:"Load" placeholder:"N" help:"Sockets a second that are lost and come back (mix, soak)."`
	Slow        int           `group:"Load" placeholder:"N" help:"Sockets that stop reading (slow)."`
	Confine     bool          `group:"Load" help:"All of it on one processor that is kept awake: latencies without the time that a hypervisor takes to wake processors. Not with --target."`
	Loops       int           `group:"Load" placeholder:"N" help:"Threads that receive (default: one for four cores)."`
}

// over puts what was given over a scenario's defaults.
func (f loadFlags) over(d loadFlags) loadFlags {
	return loadFlags{
		Users: cmp.Or(f.Users, d.Users, 5000), Connections: cmp.Or(f.Connections, d.Connections, 5000),
		Publishers: cmp.Or(f.Publishers, d.Publishers, 32), Message: cmp.Or(f.Message, d.Message, 200),
		Rate: cmp.Or(f.Rate, d.Rate), WarmUp: cmp.Or(f.WarmUp, d.WarmUp, time.Second), Duration: cmp.Or(f.Duration, d.Duration, 5*time.Second),
		Runs: cmp.Or(f.Runs, d.Runs, 3), Abreast: cmp.Or(f.Abreast, d.Abreast, 32), InFlight: cmp.Or(f.InFlight, d.InFlight, 1),
		Window: cmp.Or(f.Window, d.Window, 4096), Churn: cmp.Or(f.Churn, d.Churn, 50), Slow: cmp.Or(f.Slow, d.Slow, 10), Confine: f.Confine, Loops: f.Loops,
	}
}

func (f loadFlags) options() (scenario.Options, error) {
	if f.Message < wire.MinMessage || f.Message > 60<<10 {
		return scenario.Options{}, fmt.Errorf("%w: --message must be from %d to %d bytes", errUsage, wire.MinMessage, 60<<10)
	}
	for name, n := range map[string]int{"users": f.Users, "connections": f.Connections, "publishers": f.Publishers, "runs": f.Runs, "abreast": f.Abreast, "in-flight": f.InFlight, "window": f.Window} {
		if n < 1 {
			return scenario.Options{}, fmt.Errorf("%w: --%s must be at least 1", errUsage, name)
		}
	}
	if max(f.Users, f.Connections) > mostUsers || f.InFlight > mostInFlight || f.Rate < 0 {
		return scenario.Options{}, fmt.Errorf("%w: at most %d users and %d broadcasts in flight, no negative rate", errUsage, mostUsers, mostInFlight)
	}
	return scenario.Options{
		Users: f.Users, Connections: f.Connections, Publishers: f.Publishers, Message: f.Message, Rate: f.Rate, WarmUp: f.WarmUp,
		Duration: f.Duration, Abreast: f.Abreast, InFlight: f.InFlight, Window: f.Window, Churn: f.Churn, Slow: f.Slow, Loops: f.Loops,
	}, nil
}

const (
	mostUsers    = 1_000_000 // wire.UserID
	mostInFlight = 32        // scenario's broadcasts
)

// outputFlags say where results go.
type outputFlags struct {
	JSON  string `group:"Results" name:"json" placeholder:"FILE" help:"Write everything that was measured as JSON."`
	HTML  string `group:"Results" name:"html" placeholder:"FILE" help:"Write a page with plots that needs nothing but itself."`
	Quiet bool   `group:"Results" help:"No progress."`
}

// existing describes --target.
func (f serverFlags) existing() target.Existing {
	return target.Existing{
		Kind: target.Kind(f.Kind), URL: f.Target, PID: f.PID, RedisURL: f.Redis, RedisPID: f.RedisPID, AdminURL: f.Admin, Key: f.APIKey,
	}
}
