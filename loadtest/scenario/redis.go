//go:build linux

package scenario

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"herald/loadtest/clients"
	"herald/loadtest/measure"
	"herald/loadtest/wire"
)

// ErrUnsupported is returned for a scenario that this kind of server cannot run.
var ErrUnsupported = errors.New("not supported by this server")

// Redis publishes on users' channels in Redis, without the gateway's HTTP API.
func Redis(ctx context.Context, st *Env, o Options) (*measure.Run, error) {
	return st.withUsers(ctx, o, st.redis)
}

// redis measures Redis with open sockets.
func (st *Env) redis(ctx context.Context, c *clients.Set, o Options) (*measure.Run, error) {
	defer st.yieldToServer(o)()
	channel := st.Server.Channel()
	if channel == "" || st.Server.Redis == "" {
		return nil, fmt.Errorf("redis: %w: it has no public channel, or its Redis is unknown", ErrUnsupported)
	}
	t := wire.NewTemplate(wire.Publish(channel, wire.Message(o.Message)))
	pipe := clients.RedisPublisher{
		Addr: st.Server.Redis, Received: c.Received, Window: int64(o.Window), Batch: min(64, o.Window), Schedule: measure.Schedule{PerSecond: o.Rate},
		Command: func(dst []byte, i int, due time.Duration) []byte {
			return t.Append(dst, st.random.IntN(o.Users), wire.Stamp{Due: due, Number: uint32(i)})
		},
	}
	st.phase("publishing through Redis, warming up", o.WarmUp)
	if p := pipe.Run(ctx, st.sender, o.WarmUp); p.Err != nil {
		return nil, p.Err
	}
	st.phase("publishing through Redis", o.Duration)
	defer c.Sequential()()
	return st.measured(ctx, c, o, func(run *measure.Run, snap snapshot, recorded func() *measure.Histogram) error {
		p := pipe.Run(ctx, st.sender, o.Duration)
		delivery := recorded()
		delivery.Merge(p.Unsent)
		run.Latency(Delivery, delivery)
		run.Add(Errors, measure.Plain, float64(p.Unsent.Count()))
		unsent(run, p.Unsent.Count())
		snap.close(run, p.Sent)
		snap.order(run)
		return p.Err
	})
}

// measured observes the deliveries that do causes; do adds its own metrics.
func (st *Env) measured(ctx context.Context, c *clients.Set, o Options, do func(*measure.Run, snapshot, func() *measure.Histogram) error) (*measure.Run, error) {
	run := &measure.Run{}
	snap := st.snapshot(c)
	ob, err := st.observe(st.interval(o.Duration), func() measure.Counts {
		return measure.Counts{Sent: c.Received(), Received: c.Received(), Connections: c.Open()}
	})
	if err != nil {
		return nil, err
	}
	failed := do(run, snap, c.Record())
	err = ob.end(run, perMessage, snap.got())
	return run, errors.Join(failed, err, ctx.Err())
}

// Stored is Redis for the gateway's stored frames: one node publishes in batches, and
// the other one, which only delivers, is measured.
func Stored(ctx context.Context, st *Env, o Options) (*measure.Run, error) {
	return st.withUsers(ctx, o, st.stored)
}

// stored measures Stored with open sockets.
func (st *Env) stored(ctx context.Context, c *clients.Set, o Options) (*measure.Run, error) {
	defer st.yieldToServer(o)()
	if st.Server.DeliveryNode == nil || st.Server.Batch(nil, nil, nil) == nil {
		return nil, fmt.Errorf("stored frames: %w: it needs a second node", ErrUnsupported)
	}
	batch := min(100, o.Users)
	caller, err := st.caller(4)
	if err != nil {
		return nil, err
	}
	defer caller.Close()
	var failed atomic.Int64
	before := c.Received()
	expected := func() int64 { return (caller.Sent() - failed.Load()) * int64(batch) }
	list := make([]int, batch)
	work := clients.Work{
		For:    o.WarmUp,
		Failed: func(int) { failed.Add(1) },
		Ready:  func() bool { return expected()-(c.Received()-before) < int64(o.Window) },
		Request: func(dst []byte, i int, due time.Duration) []byte {
			first := st.random.IntN(o.Users)
			for k := range list {
				list[k] = (first + k) % o.Users
			}
			t := wire.NewTemplate(st.Server.Batch(nil, list, wire.Message(o.Message)))
			return t.Append(dst, 0, wire.Stamp{Due: due, Number: uint32(i)})
		},
	}
	st.phase("publishing in batches, warming up", o.WarmUp)
	warm := caller.Do(ctx, work)
	if warm.OK == 0 {
		return nil, fmt.Errorf("nothing could be published: %w", warm.Err)
	}
	c.AwaitReceived(ctx, before+expected(), st.patience)
	st.phase("publishing in batches", o.Duration)
	return st.measured(ctx, c, o, func(run *measure.Run, snap snapshot, recorded func() *measure.Histogram) error {
		work.For = o.Duration
		a := caller.Do(ctx, work)
		c.AwaitReceived(ctx, before+expected(), st.patience)
		addResponses(run, a, recorded())
		snap.close(run, int64(a.OK*batch))
		return nil
	})
}
