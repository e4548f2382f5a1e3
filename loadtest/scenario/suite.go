//go:build linux

package scenario

import (
	"context"
	"errors"
	"time"

	"herald/loadtest/crowd"
	"herald/loadtest/measure"
)

// The parts of a suite, by name.
const (
	PartConnect  = "connect"
	PartPublish  = "publish"
	PartPaced    = "paced"
	PartConfined = "paced, one processor"
	PartRedis    = "redis"
	PartStored   = "stored"
	PartFanout1  = "fanout, 1 in flight"
	PartFanout4  = "fanout, 4 in flight"
	PartIdle     = "idle"
	PartRaw      = "raw writes"
)

// SuiteOptions are the times of a suite; the rest is as in Options.
type SuiteOptions struct {
	Options
	PacedRate                     float64
	FirstWarmUp                   time.Duration // of the first publishing: a just-in-time compiler needs seconds
	Publish, Paced, Redis, Fanout time.Duration
	Fanouts                       bool // the fan-out is measured, too
}

// Suite measures most of what Compare shows on one server that was just
// started, and gives each part to done.
func Suite(ctx context.Context, st *Stage, o SuiteOptions, done func(part string, run *measure.Run)) error {
	if err := st.toMany(ctx, o, done); err != nil || !o.Fanouts {
		return err
	}
	return st.toOne(ctx, o, done)
}

// toMany connects users with one socket each and publishes to them.
func (st *Stage) toMany(ctx context.Context, o SuiteOptions, done func(string, *measure.Run)) error {
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

	o.Duration, o.Rate = o.Paced, o.PacedRate
	if run, err = st.publish(ctx, c, o.Options); err != nil {
		return err
	}
	done(PartPaced, run)

	o.Duration, o.Rate = o.Redis, 0
	run, err = st.redis(ctx, c, o.Options)
	if errors.Is(err, ErrCannot) {
		return nil
	}
	if err == nil {
		done(PartRedis, run)
	}
	return err
}

// toOne broadcasts to one user's sockets.
func (st *Stage) toOne(ctx context.Context, o SuiteOptions, done func(string, *measure.Run)) error {
	b := newBroadcasts(o.Connections)
	c, err := st.open(ctx, crowd.Options{Delivered: b.delivered}, make([]int, o.Connections))
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
