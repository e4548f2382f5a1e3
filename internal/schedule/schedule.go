// Package schedule keeps notifications until they are due and then has them
// delivered, each once, in the order of their times for each user.
//
// What is accepted is in Redis, in its user's hash; when it is due, one node
// claims its shard under a lease and hands a batch to a function, which must
// publish and take the entries away in one step. The lease only divides the
// work: a node that dies holding it delays its shard for the lease's length, a
// node that is paused beyond it finds that the entries are gone.
//
// What is due is decided by Redis's clock. While Redis is down nothing is
// accepted (redisx.ErrUnavailable), and what was accepted waits: it is delivered late
// rather than never.
package schedule

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

var (
	// ErrNotFound means that there is no such entry: it was delivered or
	// cancelled, or never was.
	ErrNotFound = errors.New("schedule: there is no such entry")
	// ErrFenced means that a later attempt has the request (Fence).
	ErrFenced = errors.New("schedule: a later attempt has this request")
)

// FullError means that nothing was scheduled, because a user would have too much.
type FullError struct {
	UserID string
	Most   int // entries a user may have
}

func (e *FullError) Error() string {
	return fmt.Sprintf("%s would have more than %d scheduled notifications", e.UserID, e.Most)
}

// Due is an entry whose time has come. Publishing it must take Field out of the
// hash Key in the same step, and must not happen if it is not there any more.
type Due struct {
	Entry
	Key, Field string
}

// Deliver publishes what is due, in that order, and returns how many it
// published: those that were there still. It may be called again with the same
// ones, together or one by one, until they are gone. An error with which Redis
// itself answered (redis.Error) concerns the entries: one that brings it alone is
// postponed for a minute. Any other means that nothing can be delivered now.
type Deliver func(ctx context.Context, due []Due) (published int, err error)

// Options configures a Scheduler. The zero value works.
type Options struct {
	MaxPerUser   int           // entries of one user; default 1000
	Budget       time.Duration // the longest a call to Redis may take; default 400 ms
	Lease        time.Duration // of a shard: how long a node that died delays it; default 3 s, well over twice the budget
	Recheck      time.Duration // the longest sleep of a node that expects nothing; default 1 s
	WaitReplicas int           // replicas that must have an entry before it is acknowledged; default none
	WaitTimeout  time.Duration // how long they may take, beside Budget; default 250 ms
	Log          *slog.Logger  // default: nothing is logged
}

// Scheduler keeps the schedule of one Redis primary.
type Scheduler struct {
	rdb     redis.UniversalClient
	node    string
	deliver Deliver
	o       Options
	clock   clock
	counts  counts

	// wakeAt is the Redis time in Unix ms when the worker looks again by itself.
	wakeAt atomic.Int64
	wake   chan struct{} // holds one token if it should look at once; never closed
}

//go:embed add.lua
var addSource string

//go:embed cancel.lua
var cancelSource string

//go:embed list.lua
var listSource string

//go:embed peek.lua
var peekSource string

//go:embed claim.lua
var claimSource string

//go:embed release.lua
var releaseSource string

var (
	addScript     = redis.NewScript(addSource)
	cancelScript  = redis.NewScript(cancelSource)
	listScript    = redis.NewScript(listSource)
	peekScript    = redis.NewScript(peekSource)
	claimScript   = redis.NewScript(claimSource)
	releaseScript = redis.NewScript(releaseSource)
)

// New returns a scheduler for the node, whose name no other may have; Run makes
// it deliver. rdb must be configured never to retry (MaxRetries -1) and to obey
// contexts (ContextTimeoutEnabled).
func New(rdb redis.UniversalClient, node string, deliver Deliver, o Options) *Scheduler {
	if o.MaxPerUser == 0 {
		o.MaxPerUser = 1000
	}
	if o.Budget == 0 {
		o.Budget = 400 * time.Millisecond
	}
	if o.Lease == 0 {
		o.Lease = 3 * time.Second
	}
	if o.Recheck == 0 {
		o.Recheck = time.Second
	}
	if o.WaitTimeout == 0 {
		o.WaitTimeout = 250 * time.Millisecond
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Scheduler{rdb: rdb, node: node, deliver: deliver, o: o, clock: clock{start: time.Now()}, wake: make(chan struct{}, 1)}
}

func (s *Scheduler) budget(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, s.o.Budget)
}

// unexpected names no part of the reply: it may be anybody's message.
func unexpected(parts int) error { return fmt.Errorf("unexpected reply of %d parts", parts) }
