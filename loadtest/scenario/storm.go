//go:build linux

package scenario

import (
	"context"
	"fmt"
	"time"

	"herald/loadtest/crowd"
	"herald/loadtest/loop"
	"herald/loadtest/measure"
)

// Storm makes everyone lose the connection at once, publishes as many messages
// as there are users while nobody is there, and lets everyone come back at once,
// as after a restart of what stood in between.
func Storm(ctx context.Context, st *Stage, o Options) (*measure.Run, error) {
	run := &measure.Run{}
	all := users(o.Connections)
	c, err := st.open(ctx, crowd.Options{Ids: true}, all)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if _, err := st.useOnce(ctx, c, len(all), o); err != nil {
		return nil, err
	}
	since := c.LastIDs()
	c.Each(func(s *crowd.Socket) { s.Drop() })
	missed, err := st.meanwhile(ctx, o)
	if err != nil {
		return nil, err
	}
	return run, st.comeBack(ctx, run, c, crowd.Arrivals{
		Users: all, Abreast: o.Abreast, Pace: measure.Pace{PerSecond: o.Rate}, Since: func(user int) int64 { return since[user] },
	}, missed)
}

// meanwhile publishes to users who are away, and returns how much.
func (st *Stage) meanwhile(ctx context.Context, o Options) (int64, error) {
	caller, err := st.caller(o.Publishers)
	if err != nil {
		return 0, err
	}
	defer caller.Close()
	st.tell("publishing while all are away", time.Duration(o.Connections)*200*time.Microsecond)
	a := caller.Do(ctx, crowd.Work{Count: o.Connections, Request: st.publication(o.Message, st.anyOf(o.Connections))})
	if a.OK == 0 {
		return 0, fmt.Errorf("publish: %w", a.Err)
	}
	return int64(a.OK), nil
}

func (st *Stage) comeBack(ctx context.Context, run *measure.Run, c *crowd.Crowd, a crowd.Arrivals, missed int64) error {
	st.tell("all come back", time.Duration(len(a.Users))*300*time.Microsecond)
	acc := newAccount(c)
	ob, err := st.observe(100*time.Millisecond, func() measure.Counts {
		return measure.Counts{Connections: c.Open(), Received: c.Received()}
	})
	if err != nil {
		return err
	}
	began := loop.Now()
	back := c.Connect(ctx, a)
	acc.await(ctx, missed, 2*time.Second)
	caughtUp := loop.Now() - began
	err = ob.end(run, perConnect, int64(back.Opened))
	run.Latency(Connecting, back.Latency)
	run.Add(BackAfter, measure.Seconds, back.Took.Seconds())
	run.Add(CaughtUp, measure.Seconds, caughtUp.Seconds())
	run.Add(Errors, measure.Plain, float64(back.Failed))
	if back.Failed > 0 {
		run.Note("%d of %d could not come back, the first: %v", back.Failed, len(a.Users), back.Err)
	}
	acc.close(run, missed)
	acc.order(run)
	return err
}
