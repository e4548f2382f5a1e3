package lock

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

//go:embed mark.lua
var markSource string

var markScript = redis.NewScript(markSource)

// Once calls fn unless the job (1 to 200 of [A-Za-z0-9._@-]) was done in this
// period on any node, and reports whether it called it. Periods (whole seconds,
// at least one) are counted by Redis's clocks in UTC: of 24 h, each is a calendar day.
//
// The period counts as done only when fn has returned nil and the lock was still
// held: then a marker, cron:<job>:<date>, is stored on a quorum of nodes, each of which
// refuses if the job has been given to somebody else since. Everybody else skips from
// then on. While a run goes on, others skip as well (false, nil), and find it undone if
// it fails. So call it as often as you like: until it is done, each call is a try.
//
// fn is called again in the same period after it has failed; after its process
// died, or lost the lock, before the marker was stored; and after so many nodes lost their
// data that no quorum remembers. It must be safe to repeat.
//
// ErrUnavailable, and fn was not called, when a quorum cannot be asked. After fn
// was called: its own error; or ErrLost or ErrUnavailable if it succeeded but
// could not be marked.
func (l *Locker) Once(ctx context.Context, job string, period time.Duration, fn func(context.Context, Token) error) (bool, error) {
	if err := checkName("job", job, ""); err != nil {
		return false, err
	}
	if period < time.Second || period%time.Second != 0 {
		return false, fmt.Errorf("lock: period %v of job %q: must be whole seconds", period, job)
	}
	ran, err := l.once(ctx, job, period, fn)
	if err != nil {
		return ran, fmt.Errorf("job %q: %w", job, err)
	}
	return ran, nil
}

func (l *Locker) once(ctx context.Context, job string, period time.Duration, fn func(context.Context, Token) error) (ran bool, err error) {
	now, err := l.now(ctx)
	if err != nil {
		return false, err
	}
	marker := markerKey(job, date(now, period))
	if done, err := l.done(ctx, marker); done || err != nil {
		return false, err
	}
	resource := "cron:" + job // of all periods: yesterday's slow run and today's are not two at once
	err = l.withLock(ctx, resource, l.o.JobTTL, 0, func(h *held) error {
		// Whoever held the lock until a moment ago may have done it.
		if done, err := l.done(h.ctx, marker); done || err != nil {
			return err
		}
		ran = true
		if err := fn(h.ctx, h.token); err != nil {
			return err
		}
		return h.mark(marker, 2*period)
	})
	if !ran && errors.Is(err, ErrTaken) {
		return false, nil
	}
	return ran, err
}

// now is the time by the nodes' clocks.
func (l *Locker) now(ctx context.Context) (time.Time, error) {
	clocks, err := ask(ctx, l, l.o.Budget, func(ctx context.Context, n redis.UniversalClient) (int64, error) {
		t, err := n.Time(ctx).Result()
		return t.UnixMicro(), err
	})
	if err != nil {
		return time.Time{}, err
	}
	return time.UnixMicro(median(clocks)).UTC(), nil
}

// date names the period that now is in, by when it began.
func date(now time.Time, period time.Duration) string {
	began := now.UTC().Truncate(period)
	if period%(24*time.Hour) == 0 {
		return began.Format(time.DateOnly)
	}
	return began.Format("20060102T150405Z")
}

// done asks a quorum: it shares a node with the one that stored the marker.
func (l *Locker) done(ctx context.Context, marker string) (bool, error) {
	found, err := ask(ctx, l, l.o.Budget, func(ctx context.Context, n redis.UniversalClient) (bool, error) {
		v, err := n.Exists(ctx, marker).Result()
		return v == 1, err
	})
	if count(found) > 0 {
		return true, nil
	}
	return false, err
}

// mark stores the marker, if the lock is still this run's, also when the caller
// has lost interest: the work is done.
func (h *held) mark(marker string, life time.Duration) error {
	if h.lost.Load() {
		return fmt.Errorf("done, but not marked: %w", ErrLost)
	}
	marked, err := ask(context.WithoutCancel(h.ctx), h.l, h.budget, func(ctx context.Context, n redis.UniversalClient) (bool, error) {
		v, err := markScript.Run(ctx, n, []string{tokenKey(h.resource), marker}, int64(h.token), life.Milliseconds()).Int()
		return v == 1, err
	})
	if err == nil && count(marked) < h.l.quorum {
		err = ErrLost
	}
	if err != nil {
		return fmt.Errorf("done, but not marked: %w", err)
	}
	return nil
}
