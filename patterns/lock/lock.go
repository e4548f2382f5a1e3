// Package lock is for when two must not: a lock over N independent Redis
// (Redlock), whose holder carries a fencing token, and jobs that run once in a
// period over all nodes.
//
// # What Redlock gives
//
// The lock is a key with a time to live, set on a majority of N Redis that know
// nothing of each other (https://redis.io/docs/latest/develop/clients/patterns/distributed-locks/).
// Two majorities share a node, so while clocks run at about the same speed
// (within 1 %, the drift factor) and nodes keep their data, no two hold it at
// once. It survives the loss of a minority.
//
// # What it does not give, and how the token closes it
//
// A holder can go on although its lock has passed to somebody else: it was paused (SIGSTOP,
// garbage collection, a suspended virtual machine, whose monotonic clock may
// stand still) between looking at the clock and writing; its write sat in a
// network buffer; a Redis clock stepped and took keys with it; a majority of
// nodes was restarted without data. No time-out can close this, as Martin
// Kleppmann showed (https://martin.kleppmann.com/2016/02/08/how-to-do-distributed-locking.html;
// the reply: https://antirez.com/news/101). So every acquisition comes with a Token higher
// than all before it for that resource, and whatever the lock protects refuses a
// write whose token is lower than one it has seen. Script does that where the
// protected thing is in Redis; elsewhere it is a column and a WHERE clause
// (UPDATE … SET token = $new WHERE token <= $new).
//
// A lock without the token is good for efficiency: not doing work twice. For
// correctness use both.
//
// When Redis is down everything here fails closed: nothing runs without a
// quorum, and what runs is told by its context when the lock can no longer be proven.
package lock

import (
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/go-redsync/redsync/v4"
	redsyncredis "github.com/go-redsync/redsync/v4/redis"
	"github.com/go-redsync/redsync/v4/redis/goredis/v9"
	"github.com/redis/go-redis/v9"
)

var (
	// ErrTaken means that others held the resource during every try.
	ErrTaken = errors.New("lock: taken")
	// ErrUnavailable means that fewer than a quorum of the nodes answered in time.
	ErrUnavailable = errors.New("lock: no quorum of Redis nodes")
	// ErrLost means that the lock could no longer be proven while the work ran:
	// somebody else may have been at it. It is also the cause of the work's
	// cancelled context.
	ErrLost = errors.New("lock: lost")
)

// Options configures a Locker. The zero value works.
type Options struct {
	Retries    int           // after the first try; default 10, negative: none
	RetryDelay time.Duration // between tries; default 200 ms
	Jitter     time.Duration // the most that is added to RetryDelay at random; default half of it
	// ExtendWithin is how long before its end a lock is extended while the work
	// runs; default 500 ms, at most a third of the ttl. What Redis may take to recover
	// before the work is cancelled is less than that.
	ExtendWithin time.Duration
	// Budget is how long a node may take for one step before it counts as
	// unreachable; default 200 ms, at most a tenth of the ttl. A node that hangs costs
	// the whole of it four times a lock; one that refuses costs nothing.
	Budget time.Duration
	JobTTL time.Duration // ttl of the lock in Once; default 30 s
	Log    *slog.Logger  // default: nothing is logged
}

// The least ttl leaves a node 10 ms to answer.
const minTTL = 100 * time.Millisecond

// driftFactor is how much faster a node's clock may run than this process's;
// roundingDrift is what Redis may be early by, which counts milliseconds.
const (
	driftFactor   = 0.01
	roundingDrift = 2 * time.Millisecond
)

// Locker makes locks on a fixed set of nodes. It is safe for concurrent use, and
// holds nothing that needs closing; the clients stay the caller's.
type Locker struct {
	// Static after construction.
	nodes   []redis.UniversalClient
	quorum  int
	redsync *redsync.Redsync
	o       Options

	// highest is the highest token that this process was given, or saw.
	highest atomic.Int64

	acquired, taken, unavailable, lost, extended, unreleased atomic.Uint64
}

// New returns a Locker on one or more Redis that replicate nothing from each
// other; more than half of them must answer for anything to be locked, so an even
// number survives no more than the odd one below it. With one, the lock is as available and as
// durable as that one. The clients must not retry (MaxRetries -1: a retried SET NX
// reports one's own lock as another's) and must heed contexts
// (ContextTimeoutEnabled: else Budget means nothing). It panics without a client.
func New(nodes []redis.UniversalClient, o Options) *Locker {
	if len(nodes) == 0 {
		panic("lock: no Redis")
	}
	pools := make([]redsyncredis.Pool, len(nodes))
	for i, n := range nodes {
		pools[i] = goredis.NewPool(n)
	}
	return &Locker{nodes: nodes, quorum: len(nodes)/2 + 1, redsync: redsync.New(pools...), o: o.withDefaults()}
}

func (o Options) withDefaults() Options {
	switch {
	case o.Retries == 0:
		o.Retries = 10
	case o.Retries < 0:
		o.Retries = 0
	}
	setDefault(&o.RetryDelay, 200*time.Millisecond)
	setDefault(&o.Jitter, o.RetryDelay/2)
	setDefault(&o.ExtendWithin, 500*time.Millisecond)
	setDefault(&o.Budget, 200*time.Millisecond)
	setDefault(&o.JobTTL, 30*time.Second)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

func setDefault(d *time.Duration, otherwise time.Duration) {
	if *d <= 0 {
		*d = otherwise
	}
}

// Quorum is how many of how many nodes must answer.
func (l *Locker) Quorum() (quorum, nodes int) { return l.quorum, len(l.nodes) }

// Stats counts since New.
type Stats struct {
	Acquired    uint64 // locks held, whatever became of them
	Taken       uint64 // refused because others held the resource
	Unavailable uint64 // refused because there was no quorum
	Lost        uint64 // held, and no longer proven before the work ended
	Extended    uint64 // extensions of locks that were held
	Unreleased  uint64 // left to their ttl, because the release failed
}

// Stats counts what became of locks.
func (l *Locker) Stats() Stats {
	return Stats{
		Acquired: l.acquired.Load(), Taken: l.taken.Load(), Unavailable: l.unavailable.Load(),
		Lost: l.lost.Load(), Extended: l.extended.Load(), Unreleased: l.unreleased.Load(),
	}
}

func unavailable(operation string, err error) error {
	return fmt.Errorf("%s: %w: %w", operation, ErrUnavailable, err)
}
