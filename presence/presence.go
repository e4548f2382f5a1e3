// Package presence tracks which users are online, and on how many nodes. Each node
// writes its users' connection counts to Redis, soon after they change, with a
// lease that it renews, so that the counts of a dead node expire.
//
// While Redis is down, Get fails with redisx.ErrUnavailable. Changes are kept, the
// newest count of each user only, and written when Redis is back.
package presence

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/internal/redisx"
)

// presenceKey: hash; node → "<connections> <Unix ms when the lease expires>". TTL:
// that of its newest lease.
func presenceKey(userID string) string { return redisx.UserKey(userID, "presence") }

// Local is the source of this node's connection counts; *hub.Hub implements it.
type Local interface {
	Connections(userID string) int
	// UserIDs calls f with every user who is connected here until f returns false.
	UserIDs(f func(userID string) bool)
}

// Options configures a Tracker. The zero value works.
type Options struct {
	Lifetime time.Duration // TTL of a lease, renewed every third of it; default 90 s
	Budget   time.Duration // the longest a call to Redis may take; default 400 ms
	Log      *slog.Logger  // default: nothing is logged
}

// Tracker writes this node's leases and reads those of all nodes. It is safe for
// concurrent use.
type Tracker struct {
	rdb   redis.UniversalClient
	node  string
	local Local
	o     Options

	mu      sync.Mutex
	changed map[string]struct{} // guarded by mu: users whose count in Redis is stale
	wake    chan struct{}       // holds one token while changed is not empty; never closed
}

//go:embed announce.lua
var announceSource string

//go:embed count.lua
var countSource string

var (
	announceScript = redis.NewScript(announceSource)
	countScript    = redis.NewScript(countSource)
)

// New returns a tracker for the node; Run must be called to write its counts. rdb must
// not retry.
func New(rdb redis.UniversalClient, node string, local Local, o Options) *Tracker {
	if o.Lifetime == 0 {
		o.Lifetime = 90 * time.Second
	}
	if o.Budget == 0 {
		o.Budget = 400 * time.Millisecond
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Tracker{rdb: rdb, node: node, local: local, o: o, changed: map[string]struct{}{}, wake: make(chan struct{}, 1)}
}

// Presence is the number of a user's connections, and of the nodes that hold them.
type Presence struct {
	Connections int
	Nodes       int
}

// Get returns the user's presence: current for this node, as of the last write of the
// others. It takes one round trip and at most Options.Budget, and fails with
// redisx.ErrUnavailable.
func (t *Tracker) Get(ctx context.Context, userID string) (Presence, error) {
	ctx, cancel := context.WithTimeout(ctx, t.o.Budget)
	defer cancel()
	n, err := countScript.Run(ctx, t.rdb, []string{presenceKey(userID)}, t.node, t.local.Connections(userID)).Int64Slice()
	if err == nil && len(n) != 2 {
		err = fmt.Errorf("unexpected reply %v", n)
	}
	if err != nil {
		return Presence{}, redisx.Unavailable("presence", err)
	}
	return Presence{Connections: int(n[0]), Nodes: int(n[1])}, nil
}

// Changed marks the user's count as stale; Run writes it soon. It never blocks.
func (t *Tracker) Changed(userID string) {
	t.mu.Lock()
	t.changed[userID] = struct{}{}
	t.mu.Unlock()
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// batchSize is how many users are written in one round trip.
const batchSize = 500

// Run writes changed counts and renews leases until ctx ends. Then it writes the last
// changes, within withdrawWithin; a count that cannot be written expires.
func (t *Tracker) Run(ctx context.Context) {
	repeat := time.NewTicker(t.o.Lifetime / 3)
	defer repeat.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-repeat.C:
			t.local.UserIDs(func(userID string) bool { t.Changed(userID); return true })
		case <-t.wake:
			wait := debounce
			if err := t.flush(ctx); err != nil && ctx.Err() == nil {
				t.o.Log.Warn("presence not written, will retry", "error", err)
				wait = time.Second
			}
			pause(ctx, wait)
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), withdrawWithin)
	defer cancel()
	if err := t.flush(last); err != nil {
		t.o.Log.Warn("presence not withdrawn, will expire", "error", err)
	}
}

// withdrawWithin is how long Run may take after ctx ends.
const withdrawWithin = time.Second

// debounce is the pause after a flush in which further changes accumulate.
const debounce = 10 * time.Millisecond

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// flush writes the stale counts in batches. Users whose batch failed stay stale.
func (t *Tracker) flush(ctx context.Context) error {
	for {
		users := t.take()
		if len(users) == 0 {
			return nil
		}
		if err := t.announce(ctx, users); err != nil {
			for _, userID := range users {
				t.Changed(userID)
			}
			return err
		}
	}
}

func (t *Tracker) take() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	users := make([]string, 0, min(len(t.changed), batchSize))
	for userID := range t.changed {
		if len(users) == batchSize {
			break
		}
		users = append(users, userID)
		delete(t.changed, userID)
	}
	return users
}

// announce writes the users' counts, which it reads after take removed the users from
// changed: a later change adds its user again.
func (t *Tracker) announce(ctx context.Context, users []string) error {
	ctx, cancel := context.WithTimeout(ctx, t.o.Budget)
	defer cancel()
	keys := make([]string, len(users))
	var counts []byte
	for i, userID := range users {
		keys[i] = presenceKey(userID)
		counts = strconv.AppendInt(counts, int64(t.local.Connections(userID)), 10)
		counts = append(counts, ',')
	}
	err := announceScript.Run(ctx, t.rdb, keys, t.node, t.o.Lifetime.Milliseconds(), counts).Err()
	if errors.Is(err, redis.Nil) {
		return nil
	}
	return err
}
