//go:build linux

package scenario

import (
	"context"
	"fmt"
	"time"

	"herald/loadtest/clients"
	"herald/loadtest/measure"
)

// Publish sends notifications over HTTP to users with one socket each.
func Publish(ctx context.Context, st *Env, o Options) (*measure.Run, error) {
	return st.withUsers(ctx, o, st.publish)
}

// publish measures Publish with open sockets.
func (st *Env) publish(ctx context.Context, c *clients.Set, o Options) (*measure.Run, error) {
	defer st.yieldToServer(o)()
	caller, err := st.caller(o.Publishers)
	if err != nil {
		return nil, err
	}
	defer caller.Close()
	work := clients.Work{
		Request: st.publication(o.Message, st.anyOf(o.Users)), Schedule: measure.Schedule{PerSecond: o.Rate}, For: o.WarmUp,
	}
	what := "publishing as fast as possible"
	if o.Rate > 0 {
		what = fmt.Sprintf("publishing %.0f/s", o.Rate)
	}
	st.phase(what+", warming up", o.WarmUp)
	before := c.Received()
	warm := caller.Do(ctx, work)
	if warm.OK == 0 {
		return nil, fmt.Errorf("nothing could be published: %w", warm.Err)
	}
	c.AwaitReceived(ctx, before+int64(warm.OK), st.patience)

	st.phase(what, o.Duration)
	if o.Publishers == 1 {
		defer c.Sequential()()
	}
	run := &measure.Run{}
	snap := st.snapshot(c)
	work.For = o.Duration
	err = st.deliver(ctx, run, snap, caller, work, 1)
	if o.Publishers == 1 {
		snap.order(run)
	}
	return run, err
}

// deliver sends the requests of w and measures their deliveries, of which each accepted
// request causes perRequest.
func (st *Env) deliver(ctx context.Context, run *measure.Run, snap snapshot, caller *clients.Caller, w clients.Work, perRequest int64) error {
	ob, err := st.observe(st.interval(w.For), counts(snap.set, caller))
	if err != nil {
		return err
	}
	recorded := snap.set.Record()
	a := caller.Do(ctx, w)
	expected := int64(a.OK) * perRequest
	got := snap.await(ctx, expected)
	addResponses(run, a, recorded())
	err = ob.end(run, perMessage, got)
	snap.close(run, expected)
	return err
}

func counts(c *clients.Set, caller *clients.Caller) func() measure.Counts {
	return func() measure.Counts {
		return measure.Counts{Sent: caller.Sent(), Received: c.Received(), Connections: c.Open()}
	}
}

// interval returns the sampling interval of a phase. A sample takes 0.3 ms, which
// must not show in the latencies when everything shares one CPU.
func (st *Env) interval(phase time.Duration) time.Duration {
	if st.confined != nil {
		return min(max(phase/10, time.Second), 5*time.Second)
	}
	return min(max(phase/60, 100*time.Millisecond), 5*time.Second)
}
