//go:build linux

package scenario

import (
	"context"
	"fmt"
	"time"

	"herald/loadtest/crowd"
	"herald/loadtest/measure"
)

// Publish sends notifications over HTTP to users with one socket each.
func Publish(ctx context.Context, st *Stage, o Options) (*measure.Run, error) {
	c, err := st.open(ctx, crowd.Options{}, users(o.Users))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return st.publish(ctx, c, o)
}

// publish is Publish with a crowd that is there.
func (st *Stage) publish(ctx context.Context, c *crowd.Crowd, o Options) (*measure.Run, error) {
	defer st.standBack(o)()
	caller, err := st.caller(o.Publishers)
	if err != nil {
		return nil, err
	}
	defer caller.Close()
	work := crowd.Work{
		Request: st.publication(o.Message, st.anyOf(o.Users)), Pace: measure.Pace{PerSecond: o.Rate}, For: o.WarmUp,
	}
	what := "publishing as fast as possible"
	if o.Rate > 0 {
		what = fmt.Sprintf("publishing %.0f/s", o.Rate)
	}
	st.tell(what+", warming up", o.WarmUp)
	before := c.Received()
	warm := caller.Do(ctx, work)
	if warm.OK == 0 {
		return nil, fmt.Errorf("nothing could be published: %w", warm.Err)
	}
	c.AwaitReceived(ctx, before+int64(warm.OK), time.Second)

	st.tell(what, o.Duration)
	if o.Publishers == 1 {
		defer c.Sequential()()
	}
	acc := newAccount(c)
	ob, err := st.observe(st.interval(o.Duration), counts(c, caller))
	if err != nil {
		return nil, err
	}
	recorded := c.Record()
	work.For = o.Duration
	a := caller.Do(ctx, work)
	got := acc.await(ctx, int64(a.OK), time.Second)
	run := &measure.Run{}
	answered(run, a, recorded())
	err = ob.end(run, perMessage, got)
	acc.close(run, int64(a.OK))
	if o.Publishers == 1 {
		acc.order(run)
	}
	return run, err
}

func counts(c *crowd.Crowd, caller *crowd.Caller) func() measure.Counts {
	return func() measure.Counts {
		return measure.Counts{Sent: caller.Sent(), Received: c.Received(), Connections: c.Open()}
	}
}

// interval is how often a phase is sampled. A sample takes a third of a
// millisecond, which must not show where it takes the only processor.
func (st *Stage) interval(phase time.Duration) time.Duration {
	if st.confined != nil {
		return min(max(phase/10, time.Second), 5*time.Second)
	}
	return min(max(phase/60, 100*time.Millisecond), 5*time.Second)
}
