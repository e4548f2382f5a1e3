// Package schedule stores notifications until they are due and then delivers each once,
// in the order of their times for each user.
//
// An accepted notification is stored in Redis, in its user's hash. When it is due, one
// node claims the shard under a lease and passes a batch to a Deliver function, which
// must publish the entries and remove them in one step. The lease only divides the work.
// A node that dies with it delays its shard by the length of the lease. A node that is
// paused beyond it finds that the entries are gone.
//
// Redis's clock decides what is due. While Redis is down nothing is accepted
// (redisx.ErrUnavailable), and accepted notifications are delivered late.
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

	"herald/internal/redisx"
)

var (
	// ErrNotFound means that the entry does not exist: it was delivered, cancelled or
	// never scheduled.
	ErrNotFound = errors.New("schedule: entry not found")
	// ErrFenced means that a later attempt has claimed the request (Fence).
	ErrFenced = errors.New("schedule: a later attempt has claimed this request")
)

// FullError means that nothing was scheduled, because a user would exceed the limit of
// scheduled notifications.
type FullError struct {
	UserID string
	Most   int // Options.MaxPerUser
}

func (e *FullError) Error() string {
	return fmt.Sprintf("%s would have more than %d scheduled notifications", e.UserID, e.Most)
}

// Due is an entry whose time has come. Publishing must remove Field from the hash Key in
// the same step, and must not happen if Field is gone.
type Due struct {
	Entry
	Key, Field string
}

// Deliver publishes the due entries in order and returns how many it published, which
// excludes those already gone. It may be called again with the same entries, together or
// one by one, until they are gone. An error reply of Redis (redis.Error) concerns the
// entries: a single entry that causes it is postponed for a minute. Any other error means
// that nothing can be delivered now.
type Deliver func(ctx context.Context, due []Due) (published int, err error)

// Options configures a Scheduler. The zero value works.
type Options struct {
	MaxPerUser   int           // maximum entries of one user; default 1000
	Budget       time.Duration // time limit of one call to Redis; default 400 ms
	Lease        time.Duration // of a shard, and so the delay after a crash; default 3 s, must be well over twice Budget
	Recheck      time.Duration // maximum pause between two polls; default 1 s
	WaitReplicas int           // replicas that must acknowledge an entry; default none
	WaitTimeout  time.Duration // time limit for them, in addition to Budget; default 250 ms
	Log          *slog.Logger  // default: discarded
}

// Scheduler keeps the schedule of one Redis primary.
type Scheduler struct {
	rdb     redis.UniversalClient
	node    string
	deliver Deliver
	o       Options
	clock   clock
	counts  counts

	unconfirmed, removed redisx.Throttle // of log lines

	// wakeAt is the time of the worker's next poll by Redis's clock, Unix ms.
	wakeAt atomic.Int64
	wake   chan struct{} // capacity 1; a value makes the worker poll at once; never closed
}

//go:embed add.lua
var addSource string

//go:embed cancel.lua
var cancelSource string

//go:embed confirm.lua
var confirmSource string

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
	confirmScript = redis.NewScript(confirmSource)
	listScript    = redis.NewScript(listSource)
	peekScript    = redis.NewScript(peekSource)
	claimScript   = redis.NewScript(claimSource)
	releaseScript = redis.NewScript(releaseSource)
)

// New returns a scheduler. The node name must be unique in the cluster. Call Run to
// deliver. rdb must not retry (MaxRetries -1) and must obey contexts
// (ContextTimeoutEnabled).
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

// unexpected quotes no part of the reply, which may be a user's message.
func unexpected(parts int) error { return fmt.Errorf("unexpected reply of %d parts", parts) }
