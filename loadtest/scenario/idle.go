//go:build linux

package scenario

import (
	"context"
	"fmt"
	"time"

	"herald/loadtest/crowd"
	"herald/loadtest/measure"
)

// Idle opens many sockets, sends each one message and takes one from it, and
// then does nothing but answer pings.
func Idle(ctx context.Context, st *Stage, o Options) (*measure.Run, error) {
	run := &measure.Run{}
	if err := st.prepare(ctx, users(o.Connections)); err != nil {
		return nil, err
	}
	if err := st.beforeIdle(ctx, o); err != nil {
		return nil, err
	}
	c, err := st.crowd(crowd.Options{})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	goroutines := st.receiver().Goroutines(ctx)
	base, err := measure.MemoryOf(st.processes().Server)
	if err != nil {
		return nil, fmt.Errorf("the server's memory: %w", err)
	}
	run.Memory = append(run.Memory, measure.Step{RSS: float64(base.RSS)})
	if err := st.growing(ctx, run, c, o); err != nil {
		return nil, err
	}
	acc := newAccount(c)
	a, err := st.useOnce(ctx, c, o.Connections, o)
	if err != nil {
		return nil, err
	}
	if err := st.hold(ctx, run, c, o); err != nil {
		return nil, err
	}
	failures(run, a)
	acc.close(run, int64(a.OK))
	if now := st.receiver().Goroutines(ctx); now > 0 {
		run.Add("goroutines per connection", measure.Plain, float64(now-goroutines)/float64(o.Connections))
	}
	return run, st.weigh(run, base, o.Connections)
}

// beforeIdle makes the server do once what it will do, so that its first-time
// memory is not put down to the connections.
func (st *Stage) beforeIdle(ctx context.Context, o Options) error {
	c, err := st.crowd(crowd.Options{})
	if err != nil {
		return err
	}
	defer c.Close()
	st.tell("warming up", 2*time.Second)
	few := min(o.Connections, 20)
	if a := c.Connect(ctx, crowd.Arrivals{Users: users(few)}); a.Failed > 0 {
		return fmt.Errorf("connect: %w", a.Err)
	}
	if _, err := st.useOnce(ctx, c, few, o); err != nil {
		return err
	}
	c.Close()
	return pause(ctx, time.Second)
}

// growing connects everyone in ten steps and weighs the server after each.
func (st *Stage) growing(ctx context.Context, run *measure.Run, c *crowd.Crowd, o Options) error {
	all := users(o.Connections)
	const steps = 10
	st.tell(fmt.Sprintf("connecting %d sockets", len(all)), time.Duration(len(all))*300*time.Microsecond)
	for i := range steps {
		part := all[len(all)*i/steps : len(all)*(i+1)/steps]
		if a := c.Connect(ctx, crowd.Arrivals{Users: part, Abreast: o.Abreast}); a.Failed > 0 {
			return fmt.Errorf("connect: %d sockets: %w", a.Failed, a.Err)
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
		m, err := measure.MemoryOf(st.processes().Server)
		if err != nil {
			return fmt.Errorf("the server's memory: %w", err)
		}
		run.Memory = append(run.Memory, measure.Step{Connections: int(c.Open()), RSS: float64(m.RSS)})
	}
	return nil
}

// useOnce sends every socket of the first n users a message and has every
// socket send one, and waits for those that were accepted.
func (st *Stage) useOnce(ctx context.Context, c *crowd.Crowd, n int, o Options) (crowd.Answers, error) {
	if text := st.receiver().Say(); text != nil {
		c.Say(text)
	}
	caller, err := st.caller(o.Publishers)
	if err != nil {
		return crowd.Answers{}, err
	}
	defer caller.Close()
	st.tell("one message for each", st.receiver().Settles()+time.Duration(n)*200*time.Microsecond)
	if err := pause(ctx, st.receiver().Settles()); err != nil {
		return crowd.Answers{}, err
	}
	next := -1
	before := c.Received()
	a := caller.Do(ctx, crowd.Work{Count: n, Request: st.publication(o.Message, func() int { next++; return next })})
	if a.OK == 0 {
		return a, fmt.Errorf("publish: %w", a.Err)
	}
	c.AwaitReceived(ctx, before+int64(a.OK), 2*time.Second)
	return a, nil
}

// hold does nothing for a while, and measures what that costs the server.
func (st *Stage) hold(ctx context.Context, run *measure.Run, c *crowd.Crowd, o Options) error {
	if err := pause(ctx, min(2*time.Second, o.Duration)); err != nil {
		return err
	}
	if o.Hold != nil {
		if err := o.Hold(ctx); err != nil {
			return err
		}
	}
	st.tell("idle", o.Duration)
	p := st.processes()
	samples := p.Watch(st.interval(o.Duration), func() measure.Counts { return measure.Counts{Connections: c.Open()} })
	stop, err := p.Start()
	if err == nil {
		err = pause(ctx, o.Duration)
	}
	run.Timeline = samples()
	if err != nil {
		return err
	}
	u, err := stop()
	if err != nil {
		return fmt.Errorf("the server's cost: %w", err)
	}
	if len(p.Server) > 0 {
		run.Add(CPUPerIdle, measure.Seconds, u.Server.Total.Seconds()/u.Wall.Seconds()/float64(o.Connections))
	}
	run.Add("load generator cpu", measure.Cores, u.Own.Total.Seconds()/u.Wall.Seconds())
	return nil
}

// weigh is the server's memory at the end, by connection.
func (st *Stage) weigh(run *measure.Run, base measure.Memory, n int) error {
	if len(st.processes().Server) == 0 {
		run.Note("The server's memory and processor time are not known: that takes its --pid.")
		return nil
	}
	m, err := measure.MemoryOf(st.processes().Server)
	if err != nil {
		return fmt.Errorf("the server's memory: %w", err)
	}
	run.Memory = append(run.Memory, measure.Step{Connections: n, RSS: float64(m.RSS)})
	if m.RSS > base.RSS && m.PSS > base.PSS {
		run.Add(RSSPerConn, measure.Bytes, float64(m.RSS-base.RSS)/float64(n))
		run.Add("pss per connection", measure.Bytes, float64(m.PSS-base.PSS)/float64(n))
	} else {
		run.Note("The server's memory shrank while connections were opened: too few to say what one takes.")
	}
	run.Add("rss at first", measure.Bytes, float64(base.RSS))
	run.Add("rss", measure.Bytes, float64(m.RSS))
	return nil
}
