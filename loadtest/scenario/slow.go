//go:build linux

package scenario

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"herald/loadtest/clients"
	"herald/loadtest/measure"
)

// receiveBuffer is SO_RCVBUF of a slow socket in bytes: small, so that unread
// messages soon queue up in the server.
const receiveBuffer = 4 << 10

// Slow gives some users a second socket that stops reading. The other sockets must
// not be affected. The server must close the slow ones before they fill its memory,
// and they must miss nothing after they resume.
func Slow(ctx context.Context, st *Env, o Options) (*measure.Run, error) {
	o.Slow = min(o.Slow, o.Users)
	fast, err := st.open(ctx, clients.Options{}, users(o.Users))
	if err != nil {
		return nil, err
	}
	defer fast.Close()
	slow, err := st.open(ctx, clients.Options{Ids: true, ReceiveBuffer: receiveBuffer}, users(o.Slow))
	if err != nil {
		return nil, err
	}
	defer slow.Close()

	// The reference, while all sockets read.
	calm, err := st.publishToBoth(ctx, fast, slow, o, o.Duration/4)
	if err != nil {
		return nil, err
	}
	slow.Each((*clients.Socket).Pause)
	run, err := st.publishToBoth(ctx, fast, slow, o, o.Duration)
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
	return run, st.resumeReading(ctx, run, slow, int64(before.Value+expected.Value))
}

// toSlow is the number of messages for users with a slow socket.
const toSlow = "messages for slow sockets"

// publishToBoth publishes to all users and measures the fast sockets.
func (st *Env) publishToBoth(ctx context.Context, fast, slow *clients.Set, o Options, d time.Duration) (*measure.Run, error) {
	caller, err := st.caller(o.Publishers)
	if err != nil {
		return nil, err
	}
	defer caller.Close()
	var forSlow int64 // owned by the sender's thread
	anyone := st.anyOf(o.Users)
	st.phase(fmt.Sprintf("publishing %.0f/s", o.Rate), d)
	run := &measure.Run{}
	err = st.deliver(ctx, run, st.snapshot(fast), caller, clients.Work{
		Schedule: measure.Schedule{PerSecond: o.Rate}, For: d,
		Request: st.publication(o.Message, func() int {
			user := anyone()
			if user < o.Slow {
				forSlow++
			}
			return user
		}),
	}, 1)
	run.Add(toSlow, measure.Plain, float64(forSlow))
	return run, err
}

// resumeReading lets the slow sockets read what is left, then reconnects all of
// them for the rest.
func (st *Env) resumeReading(ctx context.Context, run *measure.Run, slow *clients.Set, expected int64) error {
	st.phase("the slow sockets read again", 3*time.Second)
	all := slow.Open()
	slow.Each((*clients.Socket).Resume)
	slow.AwaitReceived(ctx, expected, st.patience)
	ended := all - slow.Open()
	run.Add(SlowClosed, measure.Plain, float64(ended))
	for code, n := range slow.CloseCodes() {
		run.Note("The server closed %d of %d slow sockets (%d).", n, all, code)
	}
	slow.Each((*clients.Socket).Drop)
	since := slow.LastIDs()
	list := slices.Sorted(maps.Keys(since))
	again, err := st.clients(clients.Options{Ids: true})
	if err != nil {
		return err
	}
	defer again.Close()
	a := again.Connect(ctx, clients.ConnectPlan{Users: list, Since: func(user int) int64 { return since[user] }})
	if a.Failed > 0 {
		return fmt.Errorf("reconnect slow sockets: %w", a.Err)
	}
	missing := expected - slow.Received()
	missing -= again.AwaitReceived(ctx, missing, st.patience)
	run.Add("lost by slow sockets", measure.Plain, float64(missing))
	run.Add(Disorder, measure.Plain, float64(slow.Disorder()+again.Disorder()))
	if missing != 0 {
		run.Note("Slow sockets lack %d of %d messages after they resumed.", missing, expected)
	}
	return nil
}
