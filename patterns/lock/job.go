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

// RunOncePerPeriod runs a job once per period in the whole cluster: it calls fn unless
// the job (1 to 200 of [A-Za-z0-9._@-]) was completed in this period on any node. It
// reports whether it called fn. A period is a whole number of seconds, at least one,
// counted by Redis's clocks in UTC; periods of 24 h are calendar days.
//
// The job counts as completed when fn has returned nil while the lock was still held.
// A marker, cron:<job>:<date>, is then stored on a quorum of nodes, and all nodes skip
// the job from then on. A node refuses the marker if a later run got a higher token.
// While one node runs the job, the others skip it (false, nil) and find it incomplete
// if it fails. So call RunOncePerPeriod as often as you like: each call is a try until
// the job is completed.
//
// fn is called again in the same period if it failed, if its process died or lost the
// lock before the marker was stored, or if so many nodes lost their data that no
// quorum remembers. It must be safe to repeat.
//
// Without a quorum it returns ErrUnavailable, and fn was not called. After fn was
// called it returns fn's error; or ErrLost or ErrUnavailable if fn succeeded but the
// marker could not be stored.
func (l *Locker) RunOncePerPeriod(ctx context.Context, job string, period time.Duration, fn func(context.Context, Token) error) (bool, error) {
	if err := checkName("job", job, ""); err != nil {
		return false, err
	}
	if period < time.Second || period%time.Second != 0 {
		return false, fmt.Errorf("lock: period %v of job %q: must be whole seconds", period, job)
	}
	ran, err := l.runJob(ctx, job, period, fn)
	if err != nil {
		return ran, fmt.Errorf("job %q: %w", job, err)
	}
	return ran, nil
}

func (l *Locker) runJob(ctx context.Context, job string, period time.Duration, fn func(context.Context, Token) error) (ran bool, err error) {
	now, err := l.now(ctx)
	if err != nil {
		return false, err
	}
	marker := markerKey(job, date(now, period))
	if done, err := l.completed(ctx, marker); done || err != nil {
		return false, err
	}
	resource := "cron:" + job // one lock for all periods: yesterday's slow run excludes today's
	err = l.withLease(ctx, resource, l.o.JobTTL, 0, func(h *lease) error {
		// The previous holder may have completed it in between.
		if done, err := l.completed(h.ctx, marker); done || err != nil {
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

// now returns the median of the nodes' clocks.
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

// date names the period that contains now by the period's beginning.
func date(now time.Time, period time.Duration) string {
	began := now.UTC().Truncate(period)
	if period%(24*time.Hour) == 0 {
		return began.Format(time.DateOnly)
	}
	return began.Format("20060102T150405Z")
}

// completed asks a quorum, which shares a node with the quorum that stored the marker.
func (l *Locker) completed(ctx context.Context, marker string) (bool, error) {
	found, err := ask(ctx, l, l.o.Budget, func(ctx context.Context, n redis.UniversalClient) (bool, error) {
		v, err := n.Exists(ctx, marker).Result()
		return v == 1, err
	})
	if count(found) > 0 {
		return true, nil
	}
	return false, err
}

// mark stores the marker if the lock still belongs to this run. It does so also after
// the caller's context has ended, because the job is done.
func (h *lease) mark(marker string, life time.Duration) error {
	if h.lost.Load() {
		return fmt.Errorf("job done but not marked as completed: %w", ErrLost)
	}
	marked, err := ask(context.WithoutCancel(h.ctx), h.l, h.budget, func(ctx context.Context, n redis.UniversalClient) (bool, error) {
		v, err := markScript.Run(ctx, n, []string{tokenKey(h.resource), marker}, int64(h.token), life.Milliseconds()).Int()
		return v == 1, err
	})
	if err == nil && count(marked) < h.l.quorum {
		err = ErrLost
	}
	if err != nil {
		return fmt.Errorf("job done but not marked as completed: %w", err)
	}
	return nil
}
