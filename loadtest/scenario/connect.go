//go:build linux

package scenario

import (
	"context"
	"fmt"
	"time"

	"herald/loadtest/clients"
	"herald/loadtest/measure"
	"herald/loadtest/target"
)

// Connect opens sockets, including all checks of the server, such as the session.
func Connect(ctx context.Context, st *Env, o Options) (*measure.Run, error) {
	run := &measure.Run{}
	c, err := st.connect(ctx, run, users(o.Connections), o)
	if err != nil {
		return nil, err
	}
	c.Close()
	return run, nil
}

// connect measures connecting and returns the open sockets. It warms up with a
// fifth of the users, who disconnect again.
func (st *Env) connect(ctx context.Context, run *measure.Run, list []int, o Options) (*clients.Set, error) {
	if err := st.prepare(ctx, list); err != nil {
		return nil, err
	}
	c, err := st.clients(clients.Options{})
	if err != nil {
		return nil, err
	}
	plan := clients.ConnectPlan{Users: list[:min(len(list), 1+len(list)/5)], Concurrency: o.Concurrency}
	st.phase("connecting, warming up", 0)
	if a := c.Connect(ctx, plan); a.Opened == 0 {
		return nil, fmt.Errorf("no socket could be opened: %w", a.Err)
	}
	c.Close()
	if err := target.Sleep(ctx, 500*time.Millisecond); err != nil { // until the server has closed them too
		return nil, err
	}

	plan.Users, plan.Schedule = list, measure.Schedule{PerSecond: o.Rate}
	st.phase(fmt.Sprintf("connecting %d sockets", len(list)), time.Duration(len(list))*200*time.Microsecond)
	ob, err := st.observe(100*time.Millisecond, func() measure.Counts { return measure.Counts{Connections: c.Open(), Received: c.Open()} })
	if err != nil {
		return nil, err
	}
	a := c.Connect(ctx, plan)
	err = ob.end(run, perConnect, int64(a.Opened))
	run.Latency(Connecting, a.Latency)
	run.Add(Errors, measure.Plain, float64(a.Failed))
	if a.Failed > 0 {
		run.Note("%d of %d sockets could not be opened, the first: %v", a.Failed, len(list), a.Err)
	}
	if err == nil {
		err = target.Sleep(ctx, st.receiver().ReadyDelay())
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}
