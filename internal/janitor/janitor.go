// Package janitor cleans Redis once a day, on one of the nodes: it walks the
// users' keys in small steps and lets the rooms that own them remove what is left
// over. It knows no room; it is given what to do.
package janitor

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"herald/internal/redisx"

	"github.com/redis/go-redis/v9"
)

// Removed counts what was removed, by kind.
type Removed map[string]int

// Chore cleans what some users have left, about a hundred a call. It must check again, in
// the step that removes, that what it removes is dead: it runs while everything
// else does, and, if a lock was lost, beside another janitor.
type Chore func(ctx context.Context, userIDs []string) (Removed, error)

// Once calls fn unless it was done today on any node, and reports whether it did;
// an error of fn leaves it undone. Its context ends when another may begin.
type Once func(ctx context.Context, fn func(ctx context.Context) error) (bool, error)

// Options configures a Janitor. The zero value works.
type Options struct {
	At     time.Duration // time of day, UTC, from which it may run; default midnight
	Check  time.Duration // between looks whether it is due; default 1 min
	Pause  time.Duration // between steps, for Redis to serve others; default 5 ms
	Step   int           // keys that a step looks at, about; default 200
	Budget time.Duration // the longest a step's SCAN may take; default 400 ms
	Log    *slog.Logger  // default: nothing is logged
}

// Janitor runs its chores once a day.
type Janitor struct {
	// Static after construction.
	rdb    redis.UniversalClient
	once   Once
	chores []Chore
	o      Options

	mu    sync.Mutex
	stats Stats // guarded by mu
}

// Stats counts since New, on this node.
type Stats struct {
	Runs     uint64            // that were finished
	Failures uint64            // runs that failed, and looks that could not tell whether it was due
	Removed  map[string]uint64 // by kind, of failed runs too
}

// New returns a janitor of the Redis behind rdb, which must not retry and must
// heed contexts; Run makes it work.
func New(rdb redis.UniversalClient, once Once, chores []Chore, o Options) *Janitor {
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
	return &Janitor{rdb: rdb, once: once, chores: chores, o: o, stats: Stats{Removed: map[string]uint64{}}}
}

// Run works until ctx ends. From At on, each day, it tries until some node has done
// it: after a failure, or if every node was down at that time, at the next look. While Redis
// is down it looks again, too.
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

// Due reports whether it is past that time of the day, UTC. The node's clock only
// decides when to ask; what day it is, Redis decides.
func Due(now time.Time, at time.Duration) bool {
	now = now.UTC()
	return now.Sub(now.Truncate(24*time.Hour)) >= at
}

func (j *Janitor) try(ctx context.Context) {
	_, err := j.once(ctx, j.clean)
	if err != nil && ctx.Err() == nil {
		j.mu.Lock()
		j.stats.Failures++
		j.mu.Unlock()
		j.o.Log.Warn("janitor will try again", "in", j.o.Check, "error", err)
	}
}

// clean walks all users' keys once, and says what it removed, whole or not.
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
		j.o.Log.Warn("janitor stopped half-way", append(attrs, "error", err)...)
		return err
	}
	j.o.Log.Info("janitor is done", attrs...)
	return nil
}

// walk takes SCAN's steps. SCAN names every key that is there all the while, some more than once.
// users counts as often as one was looked at.
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

// group is how many users a chore gets at once.
const group = 100

func (j *Janitor) chore(ctx context.Context, ids []string, removed Removed) error {
	for len(ids) > 0 {
		some := ids[:min(group, len(ids))]
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

// userIDs are the distinct ids in the keys.
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

// Stats counts what this node's janitor did.
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
