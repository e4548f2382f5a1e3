//go:build linux

package scenario

import (
	"context"
	"fmt"
	"time"

	"herald/loadtest/clients"
	"herald/loadtest/loop"
	"herald/loadtest/measure"
)

// Storm drops all sockets at once, publishes as many messages as there are users,
// and reconnects all sockets at once, as after the restart of a load balancer.
func Storm(ctx context.Context, st *Env, o Options) (*measure.Run, error) {
	run := &measure.Run{}
	all := users(o.Connections)
	c, err := st.open(ctx, clients.Options{Ids: true}, all)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if _, err := st.exchangeOnce(ctx, c, len(all), o); err != nil {
		return nil, err
	}
	since := c.LastIDs()
	c.Each(func(s *clients.Socket) { s.Drop() })
	missed, err := st.publishWhileAway(ctx, o)
	if err != nil {
		return nil, err
	}
	return run, st.reconnectAll(ctx, run, c, clients.ConnectPlan{
		Users: all, Concurrency: o.Concurrency, Schedule: measure.Schedule{PerSecond: o.Rate}, Since: func(user int) int64 { return since[user] },
	}, missed)
}

// publishWhileAway publishes to disconnected users and returns the number of
// accepted messages.
func (st *Env) publishWhileAway(ctx context.Context, o Options) (int64, error) {
	caller, err := st.caller(o.Publishers)
	if err != nil {
		return 0, err
	}
	defer caller.Close()
	st.phase("publishing while all are away", time.Duration(o.Connections)*200*time.Microsecond)
	a := caller.Do(ctx, clients.Work{Count: o.Connections, Request: st.publication(o.Message, st.anyOf(o.Connections))})
	if a.OK == 0 {
		return 0, fmt.Errorf("publish: %w", a.Err)
	}
	return int64(a.OK), nil
}

func (st *Env) reconnectAll(ctx context.Context, run *measure.Run, c *clients.Set, a clients.ConnectPlan, missed int64) error {
	st.phase("all reconnect", time.Duration(len(a.Users))*300*time.Microsecond)
	snap := st.snapshot(c)
	snap.patience *= 2 // resumes take longer
	ob, err := st.observe(100*time.Millisecond, func() measure.Counts {
		return measure.Counts{Connections: c.Open(), Received: c.Received()}
	})
	if err != nil {
		return err
	}
	began := loop.Now()
	back := c.Connect(ctx, a)
	snap.await(ctx, missed)
	caughtUp := loop.Now() - began
	err = ob.end(run, perConnect, int64(back.Opened))
	run.Latency(Connecting, back.Latency)
	run.Add(BackAfter, measure.Seconds, back.Took.Seconds())
	run.Add(CaughtUp, measure.Seconds, caughtUp.Seconds())
	run.Add(Errors, measure.Plain, float64(back.Failed))
	if back.Failed > 0 {
		run.Note("%d of %d sockets could not reconnect, the first: %v", back.Failed, len(a.Users), back.Err)
	}
	snap.close(run, missed)
	snap.order(run)
	return err
}
