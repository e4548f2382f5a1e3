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

	target.Existing

	Program string `hidden:"" help:"Path of a built gateway."`
}

// loadFlags set the load. A zero value means the scenario's default.
type loadFlags struct {
	scenario.Options
	Runs    int  `group:"Load" placeholder:"N" help:"Number of runs; the report shows medians."`
	Confine bool `group:"Load" help:"Run everything on one CPU that is kept awake: latencies without the time a hypervisor takes to wake idle CPUs. Not with --target."`
}

// withDefaults fills in flags that are not given: from the scenario's defaults, or
// the common ones.
func (f loadFlags) withDefaults(d scenario.Options, runs int) loadFlags {
	f.Users, f.Connections = cmp.Or(f.Users, d.Users, 5000), cmp.Or(f.Connections, d.Connections, 5000)
	f.Publishers, f.Message = cmp.Or(f.Publishers, d.Publishers, 32), cmp.Or(f.Message, d.Message, 200)
	f.Rate, f.Runs = cmp.Or(f.Rate, d.Rate), cmp.Or(f.Runs, runs, 3)
	f.WarmUp, f.Duration = cmp.Or(f.WarmUp, d.WarmUp, time.Second), cmp.Or(f.Duration, d.Duration, 5*time.Second)
	f.Concurrency, f.InFlight = cmp.Or(f.Concurrency, d.Concurrency, 32), cmp.Or(f.InFlight, d.InFlight, 1)
	f.Window, f.Churn, f.Slow = cmp.Or(f.Window, d.Window, 4096), cmp.Or(f.Churn, d.Churn, 50), cmp.Or(f.Slow, d.Slow, 10)
	return f
}

func (f loadFlags) check() error {
	if f.Message < wire.MinMessage || f.Message > 60<<10 {
		return fmt.Errorf("%w: --message must be from %d to %d bytes", errUsage, wire.MinMessage, 60<<10)
	}
	for name, n := range map[string]int{"users": f.Users, "connections": f.Connections, "publishers": f.Publishers, "runs": f.Runs, "concurrency": f.Concurrency, "in-flight": f.InFlight, "window": f.Window} {
		if n < 1 {
			return fmt.Errorf("%w: --%s must be at least 1", errUsage, name)
		}
	}
	if max(f.Users, f.Connections) > maxUsers || f.InFlight > maxInFlight || f.Rate < 0 {
		return fmt.Errorf("%w: at most %d users and %d broadcasts in flight, no negative rate", errUsage, maxUsers, maxInFlight)
	}
	return nil
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
