//go:build linux

package scenario

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"herald/loadtest/crowd"
	"herald/loadtest/measure"
)

// receiveBuffer is what a slow socket's kernel takes, in bytes: little, so that
// what is not read is soon the server's problem.
const receiveBuffer = 4 << 10

// Slow gives some users a second socket that stops reading. The others must not
// notice; the slow ones must be ended before they fill the server's memory, and
// must miss nothing when they come back.
func Slow(ctx context.Context, st *Stage, o Options) (*measure.Run, error) {
	o.Slow = min(o.Slow, o.Users)
	fast, err := st.open(ctx, crowd.Options{}, users(o.Users))
	if err != nil {
		return nil, err
	}
	defer fast.Close()
	slow, err := st.open(ctx, crowd.Options{Ids: true, ReceiveBuffer: receiveBuffer}, users(o.Slow))
	if err != nil {
		return nil, err
	}
	defer slow.Close()

	// How it is while everyone reads, to compare with.
	calm, err := st.toEither(ctx, fast, slow, o, o.Duration/4)
	if err != nil {
		return nil, err
	}
	slow.Each((*crowd.Socket).Pause)
	run, err := st.toEither(ctx, fast, slow, o, o.Duration)
	if err != nil {
		return nil, err
	}
	for _, q := range []string{" p50", " p99"} {
		if m, ok := calm.Get(Delivery + q); ok {
			run.Add("delivery while all read"+q, measure.Seconds, m.Value)
		}
	}
	expected, _ := run.Get(toSlow)
	before, _ := calm.Get(toSlow)
	return run, st.readAgain(ctx, run, slow, int64(before.Value+expected.Value))
}

// toSlow is how many messages were for users with a slow socket.
const toSlow = "messages for slow sockets"

// toEither publishes to all users and measures the fast sockets.
func (st *Stage) toEither(ctx context.Context, fast, slow *crowd.Crowd, o Options, d time.Duration) (*measure.Run, error) {
	caller, err := st.caller(o.Publishers)
	if err != nil {
		return nil, err
	}
	defer caller.Close()
	var forSlow int64 // on the sender's thread
	anyone := st.anyOf(o.Users)
	st.tell(fmt.Sprintf("publishing %.0f/s", o.Rate), d)
	ob, err := st.observe(st.interval(d), counts(fast, caller))
	if err != nil {
		return nil, err
	}
	acc := newAccount(fast)
	recorded := fast.Record()
	a := caller.Do(ctx, crowd.Work{
		Pace: measure.Pace{PerSecond: o.Rate}, For: d,
		Request: st.publication(o.Message, func() int {
			user := anyone()
			if user < o.Slow {
				forSlow++
			}
			return user
		}),
	})
	got := acc.await(ctx, int64(a.OK), time.Second)
	run := &measure.Run{}
	answered(run, a, recorded())
	err = ob.end(run, perMessage, got)
	acc.close(run, int64(a.OK))
	run.Add(toSlow, measure.Plain, float64(forSlow))
	return run, err
}

// readAgain lets the slow sockets read what is left, and lets those that were
// ended come back for the rest.
func (st *Stage) readAgain(ctx context.Context, run *measure.Run, slow *crowd.Crowd, expected int64) error {
	st.tell("the slow ones read again", 3*time.Second)
	all := slow.Open()
	slow.Each((*crowd.Socket).Resume)
	slow.AwaitReceived(ctx, expected, time.Second)
	ended := all - slow.Open()
	run.Add(SlowEnded, measure.Plain, float64(ended))
	for code, n := range slow.Endings() {
		run.Note("The server ended %d of %d slow sockets (%d).", n, all, code)
	}
	slow.Each((*crowd.Socket).Drop)
	since := slow.LastIDs()
	list := slices.Sorted(maps.Keys(since))
	again, err := st.crowd(crowd.Options{Ids: true})
	if err != nil {
		return err
	}
	defer again.Close()
	a := again.Connect(ctx, crowd.Arrivals{Users: list, Since: func(user int) int64 { return since[user] }})
	if a.Failed > 0 {
		return fmt.Errorf("slow sockets could not come back: %w", a.Err)
	}
	missing := expected - slow.Received()
	missing -= again.AwaitReceived(ctx, missing, time.Second)
	run.Add("lost by slow sockets", measure.Plain, float64(missing))
	run.Add(Disorder, measure.Plain, float64(slow.Disorder()+again.Disorder()))
	if missing != 0 {
		run.Note("Slow sockets lack %d of %d messages after they came back.", missing, expected)
	}
	return nil
}
