//go:build linux

package scenario

import (
	"context"
	"fmt"
	"time"

	"herald/loadtest/clients"
	"herald/loadtest/loop"
	"herald/loadtest/measure"
	"herald/loadtest/target"
	"herald/loadtest/wire"
)

// RawWrites measures the lower bound of a delivery: the CPU of one write of a ready
// frame in a process that does nothing else, to as many sockets as Fanout has.
func RawWrites(ctx context.Context, raw *target.Raw, phase func(string, time.Duration), o Options) (*measure.Run, error) {
	st, err := NewEnv(raw.Server, o.Loops, phase)
	if err != nil {
		return nil, err
	}
	defer st.Close()
	b := newBroadcasts(o.Connections)
	c, err := st.open(ctx, clients.Options{Delivered: b.delivered}, make([]int, o.Connections))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := raw.Accepted(ctx); err != nil {
		return nil, err
	}
	defer st.yieldToServer(o)()
	phase("raw writes", o.Duration)
	for until := loop.Now() + o.Duration; loop.Now() < until; {
		due := loop.Now()
		if err := raw.Round(wire.Stamp{Due: due, Number: uint32(b.begin(due))}); err != nil {
			return nil, err
		}
		if !b.await(ctx, 5*time.Second) {
			return nil, fmt.Errorf("raw writes: a round did not arrive: %w", context.Cause(ctx))
		}
	}
	u, err := raw.Finish(ctx)
	if err != nil {
		return nil, err
	}
	if u.Writes == 0 || u.Blocked > 0 {
		return nil, fmt.Errorf("raw writes: %d writes, %d would have blocked", u.Writes, u.Blocked)
	}
	run := &measure.Run{}
	run.Add(WritePerFrame, measure.Seconds, u.CPU.Seconds()/float64(u.Writes))
	return run, nil
}
