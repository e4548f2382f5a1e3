// Package presence knows who is online, and on how many nodes: each node notes
// in Redis how many connections its users have there, soon after it changes,
// and repeats its notes so that those of a node that died run out.
//
// While Redis is down Get fails with redisx.ErrUnavailable, and changes wait: only the
// newest number of each user is remembered.
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

// presenceKey: hash; node → "<connections> <Unix ms when the note ends>". Lives
// for the lifetime of its newest note.
func presenceKey(userID string) string { return redisx.UserKey(userID, "presence") }

// Local is what this node knows of its own connections.
type Local interface {
	Connections(userID string) int
	// UserIDs calls f with every user who is connected here until f returns false.
	UserIDs(f func(userID string) bool)
}

// Options configures a Tracker. The zero value works.
type Options struct {
	Lifetime time.Duration // of a note; repeated three times as often; default 90 s
	Budget   time.Duration // the longest a call to Redis may take; default 400 ms
	Log      *slog.Logger  // default: nothing is logged
}

// Tracker keeps this node's notes and reads everyone's.
type Tracker struct {
	rdb   redis.UniversalClient
	node  string
	local Local
	o     Options

	mu      sync.Mutex
	changed map[string]struct{} // guarded by mu: users whose note is out of date
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

// New returns a tracker for the node; Run makes it work. rdb must not retry.
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

// Presence is where a user is connected.
type Presence struct {
	Connections int
	Nodes       int
}

// Get returns the user's presence: exact for this node, as of the last note for
// the others.
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

// Changed tells that the user has more or fewer connections here. It never blocks.
func (t *Tracker) Changed(userID string) {
	t.mu.Lock()
	t.changed[userID] = struct{}{}
	t.mu.Unlock()
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// group is how many users are noted in one round trip.
const group = 500

// Run keeps the notes until ctx ends, then withdraws what is no longer true.
func (t *Tracker) Run(ctx context.Context) {
	repeat := time.NewTicker(t.o.Lifetime / 3)
	defer repeat.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-repeat.C:
			t.local.UserIDs(func(userID string) bool { t.Changed(userID); return true })
		case <-t.wake:
			wait := gather
			if err := t.flush(ctx); err != nil && ctx.Err() == nil {
				t.o.Log.Warn("presence cannot be noted", "error", err)
				wait = time.Second
			}
			pause(ctx, wait)
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), withdrawWithin)
	defer cancel()
	if err := t.flush(last); err != nil {
		t.o.Log.Warn("presence cannot be withdrawn; it runs out", "error", err)
	}
}

// withdrawWithin is how long a node that stops may take to withdraw its notes.
const withdrawWithin = time.Second

// gather is how long changes that come right after others are gathered.
const gather = 10 * time.Millisecond

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// flush notes what has changed, a group at a time; what could not be noted has
// still changed.
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
	users := make([]string, 0, min(len(t.changed), group))
	for userID := range t.changed {
		if len(users) == group {
			break
		}
		users = append(users, userID)
		delete(t.changed, userID)
	}
	return users
}

// announce reads the numbers after the users were taken off the list: a change
// that comes later puts its user back.
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
