//go:build linux

package scenario

import (
	"context"
	"errors"
	"time"

	"herald/loadtest/clients"
	"herald/loadtest/measure"
)

// Names of the parts of a comparison.
const (
	PartConnect   = "connect"
	PartPublish   = "publish"
	PartFixedRate = "fixed rate"
	PartConfined  = "fixed rate, one CPU"
	PartRedis     = "redis"
	PartStored    = "stored"
	PartFanout1   = "fanout, 1 in flight"
	PartFanout4   = "fanout, 4 in flight"
	PartIdle      = "idle"
	PartRaw       = "raw writes"
)

// SuiteOptions are Options with the rate and durations of each part.
type SuiteOptions struct {
	Options
	FixedRate                             float64
	FirstWarmUp                           time.Duration // of the first part: a just-in-time compiler needs seconds
	Publish, FixedRateTime, Redis, Fanout time.Duration
	Fanouts                               bool // measure the fan-out too
}

// Suite measures most parts of a comparison on one new server. It calls done with
// each result.
func Suite(ctx context.Context, st *Env, o SuiteOptions, done func(part string, run *measure.Run)) error {
	if err := st.oneSocketEach(ctx, o, done); err != nil || !o.Fanouts {
		return err
	}
	return st.manySocketsOfOne(ctx, o, done)
}

// oneSocketEach connects users with one socket each and publishes to them.
func (st *Env) oneSocketEach(ctx context.Context, o SuiteOptions, done func(string, *measure.Run)) error {
	run := &measure.Run{}
	o.Rate = 0
	c, err := st.connect(ctx, run, users(o.Users), o.Options)
	if err != nil {
		return err
	}
	defer c.Close()
	done(PartConnect, run)

	first := o.Options
	first.WarmUp, first.Duration = o.FirstWarmUp, o.Publish
	if run, err = st.publish(ctx, c, first); err != nil {
		return err
	}
	done(PartPublish, run)

	o.Duration, o.Rate = o.FixedRateTime, o.FixedRate
	if run, err = st.publish(ctx, c, o.Options); err != nil {
		return err
	}
	done(PartFixedRate, run)

	o.Duration, o.Rate = o.Redis, 0
	run, err = st.redis(ctx, c, o.Options)
	if errors.Is(err, ErrUnsupported) {
		return nil
	}
	if err == nil {
		done(PartRedis, run)
	}
	return err
}

// manySocketsOfOne broadcasts to the sockets of one user.
func (st *Env) manySocketsOfOne(ctx context.Context, o SuiteOptions, done func(string, *measure.Run)) error {
	b := newBroadcasts(o.Connections)
	c, err := st.open(ctx, clients.Options{Delivered: b.delivered}, make([]int, o.Connections))
	if err != nil {
		return err
	}
	defer c.Close()
	o.Duration = o.Fanout
	for _, part := range []struct {
		name     string
		inFlight int
	}{{PartFanout1, 1}, {PartFanout4, 4}} {
		run := &measure.Run{}
		o.InFlight = part.inFlight
		if err := st.fanout(ctx, run, c, b, o.Options); err != nil {
			return err
		}
		done(part.name, run)
	}
	return nil
}
