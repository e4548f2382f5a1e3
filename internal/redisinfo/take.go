package redisinfo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// TakeOptions configures Take. The zero value works.
type TakeOptions struct {
	Budget     time.Duration // the longest that one round trip may take; default 300 ms
	Probes     int           // round trips that are timed; default 3
	Subscriber string        // client name of the subscription whose buffer is reported; default none
}

func (o TakeOptions) withDefaults() TakeOptions {
	if o.Budget <= 0 {
		o.Budget = 300 * time.Millisecond
	}
	if o.Probes <= 0 {
		o.Probes = 3
	}
	return o
}

// Take makes a Report: Probes short round trips, then one for everything else. It fails if
// Redis does not answer within the budget or cannot work (loading, or blocked by a
// script). Sections that Redis refuses are left out. rdb must respect the context's
// deadline (ContextTimeoutEnabled), or the budget has no effect.
func Take(ctx context.Context, rdb redis.UniversalClient, o TakeOptions) (Report, error) {
	o = o.withDefaults()
	r := Report{At: time.Now()}
	if err := r.probe(ctx, rdb, o); err != nil {
		return Report{}, fmt.Errorf("look at Redis: %w", err)
	}
	if err := r.ask(ctx, rdb, o); err != nil {
		return Report{}, fmt.Errorf("look at Redis: %w", err)
	}
	return r, nil
}

// Ping returns the duration of one round trip.
func Ping(ctx context.Context, rdb redis.UniversalClient, budget time.Duration) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	began := time.Now()
	err := rdb.Ping(ctx).Err()
	if refused(err) {
		err = nil // it answered
	}
	return time.Since(began), err
}

// probe times round trips of TIME, and takes the clock from the shortest.
func (r *Report) probe(ctx context.Context, rdb redis.UniversalClient, o TakeOptions) error {
	var took []time.Duration
	for range o.Probes {
		d, clock, err := askTime(ctx, rdb, o.Budget)
		if refused(err) {
			r.refuse("TIME")
			d, err = Ping(ctx, rdb, o.Budget)
		} else if err == nil && (len(took) == 0 || d < slices.Min(took)) {
			r.Clock = &clock
		}
		if err != nil {
			return err
		}
		took = append(took, d)
	}
	slices.Sort(took)
	r.RoundTrip, r.Slowest, r.Probes = took[len(took)/2], took[len(took)-1], len(took)
	return nil
}

// askTime assumes that Redis read its clock half-way through the round trip.
func askTime(ctx context.Context, rdb redis.UniversalClient, budget time.Duration) (took, clock time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	began := time.Now()
	theirs, err := rdb.Time(ctx).Result()
	took = time.Since(began)
	// Without the monotonic part, which would hide a step of this node's clock.
	return took, theirs.Sub(began.Round(0).Add(took / 2)), err
}

// slowLogPage is how many entries are read: they carry arguments, so a full log can be
// large.
const slowLogPage = 32

var configNames = []string{"appendfsync", "save", "slowlog-log-slower-than", "client-output-buffer-limit", "notify-keyspace-events"}

// ask reads everything but the time, in one round trip.
func (r *Report) ask(ctx context.Context, rdb redis.UniversalClient, o TakeOptions) error {
	ctx, cancel := context.WithTimeout(ctx, o.Budget)
	defer cancel()
	get := []any{"CONFIG", "GET"}
	for _, name := range configNames { // several at once since Redis 7.0
		get = append(get, name)
	}
	pipe := rdb.Pipeline()
	info := pipe.Info(ctx)
	config := redis.NewMapStringStringCmd(ctx, get...)
	_ = pipe.Process(ctx, config) // queues it: cannot fail
	slow := pipe.SlowLogGet(ctx, slowLogPage)
	clients := redis.NewStringCmd(ctx, "CLIENT", "LIST", "TYPE", "pubsub")
	_ = pipe.Process(ctx, clients)
	_, _ = pipe.Exec(ctx) // each command has its own error

	for _, c := range []struct {
		name string
		cmd  redis.Cmder
		take func()
	}{
		{"INFO", info, func() { r.Info = parseInfo(info.Val()) }},
		{"CONFIG GET", config, func() { r.Config = parseConfig(config.Val()) }},
		{"SLOWLOG GET", slow, func() { r.SlowLog = slowLog(slow.Val()) }},
		{"CLIENT LIST", clients, func() { r.Subscribers = parseSubscribers(clients.Val(), o.Subscriber) }},
	} {
		switch err := c.cmd.Err(); {
		case err == nil:
			c.take()
		case refused(err):
			r.refuse(c.name)
		default:
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

func (r *Report) refuse(command string) {
	if !slices.Contains(r.Refused, command) {
		r.Refused = append(r.Refused, command)
	}
}

// cannotWork are prefixes of Redis's errors about the server's state, not the command.
var cannotWork = []string{"LOADING", "BUSY", "MASTERDOWN", "NOAUTH", "WRONGPASS", "CLUSTERDOWN"}

// refused reports whether Redis refused the command: not permitted, renamed, unknown, or
// with other arguments in this version.
func refused(err error) bool {
	var reply redis.Error
	if !errors.As(err, &reply) {
		return false
	}
	return !slices.ContainsFunc(cannotWork, func(p string) bool { return strings.HasPrefix(reply.Error(), p) })
}
