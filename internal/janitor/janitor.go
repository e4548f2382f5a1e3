// Package janitor removes dead keys from Redis once a day, on one node of the cluster. It
// scans the users' keys in small steps and passes the user ids to chores, which the
// packages that own the keys provide.
package janitor

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/internal/redisx"
)

// Removed counts what was removed, by kind.
type Removed map[string]int

// Chore removes the dead keys of some users, at most 100 per call. It must check and remove
// in one step: it runs during normal operation and, if a lock was lost, concurrently with
// another janitor.
type Chore func(ctx context.Context, userIDs []string) (Removed, error)

// OncePerDay calls fn unless the job was completed today on any node, and reports whether it
// called it. After an error of fn the job is not completed. fn's context ends when another
// node may start the job.
type OncePerDay func(ctx context.Context, fn func(ctx context.Context) error) (bool, error)

// Options configures a Janitor. The zero value works.
type Options struct {
	At     time.Duration // time of day, UTC, after which it runs; default midnight
	Check  time.Duration // between two checks whether it is due; default 1 min
	Pause  time.Duration // between steps, to leave Redis free for others; default 5 ms
	Step   int           // approximate keys per step; default 200
	Budget time.Duration // time limit of a step's SCAN; default 400 ms
	Log    *slog.Logger  // default: discarded
}

// Janitor runs its chores once a day.
type Janitor struct {
	// Static after construction.
	rdb    redis.UniversalClient
	perDay OncePerDay
	chores []Chore
	o      Options

	mu    sync.Mutex
	stats Stats // guarded by mu
}

// Stats holds counters since New, on this node.
type Stats struct {
	Runs     uint64            // completed runs
	Failures uint64            // failed runs, and failed checks whether a run is due
	Removed  map[string]uint64 // by kind, including failed runs
}

// New returns a janitor. Call Run to start it. rdb must not retry and must obey contexts.
func New(rdb redis.UniversalClient, perDay OncePerDay, chores []Chore, o Options) *Janitor {
	if o.Check <= 0 {
		o.Check = time.Minute
	}
	if o.Pause <= 0 {
		o.Pause = 5 * time.Millisecond
	}
	if o.Step <= 0 {
		o.Step = 200
	}
	if o.Budget <= 0 {
		o.Budget = 400 * time.Millisecond
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Janitor{rdb: rdb, perDay: perDay, chores: chores, o: o, stats: Stats{Removed: map[string]uint64{}}}
}

// Run runs the chores once a day after Options.At, until ctx ends. It retries every
// Options.Check until one node has succeeded, also while Redis is down.
func (j *Janitor) Run(ctx context.Context) {
	tick := time.NewTicker(j.o.Check)
	defer tick.Stop()
	for {
		if Due(time.Now(), j.o.At) {
			j.try(ctx)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// Due reports whether now is past the time of day at, UTC. This node's clock only decides
// when to try; Redis's clock decides which day it is.
func Due(now time.Time, at time.Duration) bool {
	now = now.UTC()
	return now.Sub(now.Truncate(24*time.Hour)) >= at
}

func (j *Janitor) try(ctx context.Context) {
	_, err := j.perDay(ctx, j.clean)
	if err != nil && ctx.Err() == nil {
		j.mu.Lock()
		j.stats.Failures++
		j.mu.Unlock()
		j.o.Log.Warn("janitor will try again", "in", j.o.Check, "error", err)
	}
}

// clean scans all users' keys once, and logs and counts what it removed, also after an
// error.
func (j *Janitor) clean(ctx context.Context) error {
	began, removed := time.Now(), Removed{}
	users, err := j.walk(ctx, removed)
	attrs := []any{"users", users, "took", time.Since(began).Round(time.Millisecond)}
	j.mu.Lock()
	for kind, n := range removed {
		attrs = append(attrs, kind, n)
		j.stats.Removed[kind] += uint64(n)
	}
	if err == nil {
		j.stats.Runs++
	}
	j.mu.Unlock()
	if err != nil {
		j.o.Log.Warn("janitor stopped before the end", append(attrs, "error", err)...)
		return err
	}
	j.o.Log.Info("janitor is done", attrs...)
	return nil
}

// walk runs the chores on each page of a SCAN. SCAN returns every key that exists during the
// whole scan, some more than once, so users can count a user twice.
func (j *Janitor) walk(ctx context.Context, removed Removed) (users int, err error) {
	for cursor := uint64(0); ; {
		var ids []string
		if ids, cursor, err = j.step(ctx, cursor); err != nil {
			return users, err
		}
		users += len(ids)
		if err := j.chore(ctx, ids, removed); err != nil || cursor == 0 {
			return users, err
		}
		select {
		case <-time.After(j.o.Pause):
		case <-ctx.Done():
			return users, context.Cause(ctx)
		}
	}
}

func (j *Janitor) step(ctx context.Context, cursor uint64) ([]string, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, j.o.Budget)
	defer cancel()
	keys, next, err := j.rdb.Scan(ctx, cursor, redisx.UserKeys, int64(j.o.Step)).Result()
	if err != nil {
		return nil, 0, fmt.Errorf("janitor: scan: %w", err)
	}
	return userIDs(keys), next, nil
}

// choreUsers is the maximum number of users in one call of a Chore.
const choreUsers = 100

func (j *Janitor) chore(ctx context.Context, ids []string, removed Removed) error {
	for len(ids) > 0 {
		some := ids[:min(choreUsers, len(ids))]
		ids = ids[len(some):]
		for _, chore := range j.chores {
			r, err := chore(ctx, some)
			for kind, n := range r {
				removed[kind] += n
			}
			if err != nil {
				return fmt.Errorf("janitor: %w", err)
			}
		}
	}
	return nil
}

// userIDs returns the distinct user ids in the keys.
func userIDs(keys []string) (ids []string) {
	seen := map[string]bool{}
	for _, key := range keys {
		id, _, ok := redisx.CutUserKey(key)
		if ok && !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	return ids
}

// Stats returns the counters.
func (j *Janitor) Stats() Stats {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.stats
	s.Removed = make(map[string]uint64, len(j.stats.Removed))
	for kind, n := range j.stats.Removed {
		s.Removed[kind] = n
	}
	return s
}
