//go:build linux

package scenario

import (
	"context"
	"fmt"
	"time"

	"herald/loadtest/crowd"
	"herald/loadtest/measure"
)

// Connect opens sockets, with everything that the server checks before it lets
// a user in.
func Connect(ctx context.Context, st *Stage, o Options) (*measure.Run, error) {
	run := &measure.Run{}
	c, err := st.connect(ctx, run, users(o.Connections), o)
	if err != nil {
		return nil, err
	}
	c.Close()
	return run, nil
}

// connect measures how users connect, and returns them connected. Before that
// it warms up with some who leave again.
func (st *Stage) connect(ctx context.Context, run *measure.Run, list []int, o Options) (*crowd.Crowd, error) {
	if err := st.prepare(ctx, list); err != nil {
		return nil, err
	}
	c, err := st.crowd(crowd.Options{})
	if err != nil {
		return nil, err
	}
	arrivals := crowd.Arrivals{Users: list[:min(len(list), 1+len(list)/5)], Abreast: o.Abreast}
	st.tell("connecting, warming up", 0)
	if a := c.Connect(ctx, arrivals); a.Opened == 0 {
		return nil, fmt.Errorf("no socket could be opened: %w", a.Err)
	}
	c.Close()
	if err := pause(ctx, 500*time.Millisecond); err != nil { // the server has to see them go
		return nil, err
	}

	arrivals.Users, arrivals.Pace = list, measure.Pace{PerSecond: o.Rate}
	st.tell(fmt.Sprintf("connecting %d sockets", len(list)), time.Duration(len(list))*200*time.Microsecond)
	ob, err := st.observe(100*time.Millisecond, func() measure.Counts { return measure.Counts{Connections: c.Open(), Received: c.Open()} })
	if err != nil {
		return nil, err
	}
	a := c.Connect(ctx, arrivals)
	err = ob.end(run, perConnect, int64(a.Opened))
	run.Latency(Connecting, a.Latency)
	run.Add(Errors, measure.Plain, float64(a.Failed))
	if a.Failed > 0 {
		run.Note("%d of %d sockets could not be opened, the first: %v", a.Failed, len(list), a.Err)
	}
	if err == nil {
		err = pause(ctx, st.receiver().Settles())
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}
