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

// Idle opens many sockets, exchanges one message in each direction on each, and then
// only answers pings.
func Idle(ctx context.Context, st *Env, o Options) (*measure.Run, error) {
	run := &measure.Run{}
	if err := st.prepare(ctx, users(o.Connections)); err != nil {
		return nil, err
	}
	if err := st.warmUpServer(ctx, o); err != nil {
		return nil, err
	}
	c, err := st.clients(clients.Options{})
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
	if err := st.connectInSteps(ctx, run, c, o); err != nil {
		return nil, err
	}
	snap := st.snapshot(c)
	a, err := st.exchangeOnce(ctx, c, o.Connections, o)
	if err != nil {
		return nil, err
	}
	if err := st.hold(ctx, run, c, o); err != nil {
		return nil, err
	}
	failures(run, a)
	snap.close(run, int64(a.OK))
	if now := st.receiver().Goroutines(ctx); now > 0 {
		run.Add("goroutines per connection", measure.Plain, float64(now-goroutines)/float64(o.Connections))
	}
	return run, st.addMemory(run, base, o.Connections)
}

// warmUpServer exercises the server once, so that its one-time allocations do not
// count as memory of connections.
func (st *Env) warmUpServer(ctx context.Context, o Options) error {
	c, err := st.clients(clients.Options{})
	if err != nil {
		return err
	}
	defer c.Close()
	st.phase("warming up", 2*time.Second)
	few := min(o.Connections, 20)
	if a := c.Connect(ctx, clients.ConnectPlan{Users: users(few)}); a.Failed > 0 {
		return fmt.Errorf("connect: %w", a.Err)
	}
	if _, err := st.exchangeOnce(ctx, c, few, o); err != nil {
		return err
	}
	c.Close()
	return target.Sleep(ctx, time.Second)
}

// connectInSteps opens all sockets in ten steps and samples the memory after each.
func (st *Env) connectInSteps(ctx context.Context, run *measure.Run, c *clients.Set, o Options) error {
	all := users(o.Connections)
	const steps = 10
	st.phase(fmt.Sprintf("connecting %d sockets", len(all)), time.Duration(len(all))*300*time.Microsecond)
	for i := range steps {
		part := all[len(all)*i/steps : len(all)*(i+1)/steps]
		if a := c.Connect(ctx, clients.ConnectPlan{Users: part, Concurrency: o.Concurrency}); a.Failed > 0 {
			return fmt.Errorf("connect: %d sockets: %w", a.Failed, a.Err)
		}
		if err := target.Sleep(ctx, 100*time.Millisecond); err != nil {
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

// exchangeOnce publishes one message to each of the first n users, sends one text on
// every socket, and waits for the accepted messages.
func (st *Env) exchangeOnce(ctx context.Context, c *clients.Set, n int, o Options) (clients.Answers, error) {
	if text := st.receiver().SendText(); text != nil {
		c.SendText(text)
	}
	caller, err := st.caller(o.Publishers)
	if err != nil {
		return clients.Answers{}, err
	}
	defer caller.Close()
	st.phase("one message per socket", st.receiver().ReadyDelay()+time.Duration(n)*200*time.Microsecond)
	if err := target.Sleep(ctx, st.receiver().ReadyDelay()); err != nil {
		return clients.Answers{}, err
	}
	next := -1
	before := c.Received()
	a := caller.Do(ctx, clients.Work{Count: n, Request: st.publication(o.Message, func() int { next++; return next })})
	if a.OK == 0 {
		return a, fmt.Errorf("publish: %w", a.Err)
	}
	c.AwaitReceived(ctx, before+int64(a.OK), 2*st.patience)
	return a, nil
}

// hold keeps the sockets idle and measures the CPU of the server.
func (st *Env) hold(ctx context.Context, run *measure.Run, c *clients.Set, o Options) error {
	if err := target.Sleep(ctx, min(2*time.Second, o.Duration)); err != nil {
		return err
	}
	if o.Hold != nil {
		if err := o.Hold(ctx); err != nil {
			return err
		}
	}
	st.phase("idle", o.Duration)
	p := st.processes()
	samples := p.Watch(st.interval(o.Duration), func() measure.Counts { return measure.Counts{Connections: c.Open()} })
	stop, err := p.Start()
	if err == nil {
		err = target.Sleep(ctx, o.Duration)
	}
	run.Timeline = samples()
	if err != nil {
		return err
	}
	u, err := stop()
	if err != nil {
		return fmt.Errorf("the server's CPU: %w", err)
	}
	if len(p.Server) > 0 {
		run.Add(CPUPerIdle, measure.Seconds, u.Server.Total.Seconds()/u.Wall.Seconds()/float64(o.Connections))
	}
	run.Add("load generator cpu", measure.Cores, u.Own.Total.Seconds()/u.Wall.Seconds())
	return nil
}

// addMemory adds the memory of the server per connection.
func (st *Env) addMemory(run *measure.Run, base measure.Memory, n int) error {
	if len(st.processes().Server) == 0 {
		run.Note("Memory and CPU of the server are unknown without --pid.")
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
		run.Note("The memory of the server shrank while connections were opened: too few connections to measure.")
	}
	run.Add("rss at the start", measure.Bytes, float64(base.RSS))
	run.Add("rss", measure.Bytes, float64(m.RSS))
	return nil
}
