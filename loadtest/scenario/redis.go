//go:build linux

package scenario

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"herald/loadtest/crowd"
	"herald/loadtest/measure"
	"herald/loadtest/wire"
)

// ErrCannot says that a scenario cannot be played with this server.
var ErrCannot = errors.New("not with this server")

// Redis publishes straight to users' channels, as a program does that knows
// nothing of the gateway.
func Redis(ctx context.Context, st *Stage, o Options) (*measure.Run, error) {
	c, err := st.open(ctx, crowd.Options{}, users(o.Users))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return st.redis(ctx, c, o)
}

// redis is Redis with a crowd that is there.
func (st *Stage) redis(ctx context.Context, c *crowd.Crowd, o Options) (*measure.Run, error) {
	defer st.standBack(o)()
	channel := st.Server.Channel()
	if channel == "" || st.Server.Redis == "" {
		return nil, fmt.Errorf("redis: %w: it has no channel that others may publish on, or its Redis is unknown", ErrCannot)
	}
	t := wire.NewTemplate(wire.Publish(channel, wire.Message(o.Message)))
	pipe := crowd.Pipe{
		Addr: st.Server.Redis, Received: c.Received, Window: int64(o.Window), Batch: min(64, o.Window), Pace: measure.Pace{PerSecond: o.Rate},
		Command: func(dst []byte, i int, due time.Duration) []byte {
			return t.Append(dst, st.random.IntN(o.Users), wire.Stamp{Due: due, Number: uint32(i)})
		},
	}
	st.tell("publishing through Redis, warming up", o.WarmUp)
	if p := pipe.Run(ctx, st.sender, o.WarmUp); p.Err != nil {
		return nil, p.Err
	}
	st.tell("publishing through Redis", o.Duration)
	defer c.Sequential()()
	return st.measured(ctx, c, o, func(run *measure.Run, acc account, recorded func() *measure.Histogram) error {
		p := pipe.Run(ctx, st.sender, o.Duration)
		delivery := recorded()
		delivery.Merge(p.Unsent)
		run.Latency(Delivery, delivery)
		run.Add(Errors, measure.Plain, float64(p.Unsent.Count()))
		unsent(run, p.Unsent.Count())
		acc.close(run, p.Sent)
		acc.order(run)
		return p.Err
	})
}

// measured measures what do makes the crowd receive; do adds the rest.
func (st *Stage) measured(ctx context.Context, c *crowd.Crowd, o Options, do func(*measure.Run, account, func() *measure.Histogram) error) (*measure.Run, error) {
	run := &measure.Run{}
	acc := newAccount(c)
	ob, err := st.observe(st.interval(o.Duration), func() measure.Counts {
		return measure.Counts{Sent: c.Received(), Received: c.Received(), Connections: c.Open()}
	})
	if err != nil {
		return nil, err
	}
	failed := do(run, acc, c.Record())
	err = ob.end(run, perMessage, acc.got())
	return run, errors.Join(failed, err, ctx.Err())
}

// Stored is Redis for the gateway's own frames: one node publishes in batches,
// and what is measured is the other one, which only delivers.
func Stored(ctx context.Context, st *Stage, o Options) (*measure.Run, error) {
	c, err := st.open(ctx, crowd.Options{}, users(o.Users))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return st.stored(ctx, c, o)
}

// stored is Stored with a crowd that is there.
func (st *Stage) stored(ctx context.Context, c *crowd.Crowd, o Options) (*measure.Run, error) {
	defer st.standBack(o)()
	if st.Server.Delivers == nil || st.Server.Batch(nil, nil, nil) == nil {
		return nil, fmt.Errorf("stored frames: %w: it needs a second node", ErrCannot)
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
	work := crowd.Work{
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
	st.tell("publishing in batches, warming up", o.WarmUp)
	warm := caller.Do(ctx, work)
	if warm.OK == 0 {
		return nil, fmt.Errorf("nothing could be published: %w", warm.Err)
	}
	c.AwaitReceived(ctx, before+expected(), time.Second)
	st.tell("publishing in batches", o.Duration)
	return st.measured(ctx, c, o, func(run *measure.Run, acc account, recorded func() *measure.Histogram) error {
		work.For = o.Duration
		a := caller.Do(ctx, work)
		c.AwaitReceived(ctx, before+expected(), time.Second)
		answered(run, a, recorded())
		acc.close(run, int64(a.OK*batch))
		return nil
	})
}
