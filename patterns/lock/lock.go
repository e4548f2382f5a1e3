// Package lock provides distributed mutual exclusion: Redlock over N independent
// Redis servers, with fencing tokens, and jobs that run once per period in a cluster.
//
// # What it does
//
// [Locker.WithLock] runs a function while it holds a named lock, and extends the
// lock until the function returns. [Locker.RunOncePerPeriod] runs a job on one of
// many nodes, once a day or once an hour. [Script] is a Redis script that refuses
// the write of a holder whose lock has passed on.
//
// # What Redlock guarantees
//
// The lock is a key with a TTL, set on a majority of N Redis servers that do not
// replicate each other
// (https://redis.io/docs/latest/develop/clients/patterns/distributed-locks/).
// Two majorities share a server. So two clients never hold the lock at once, as
// long as clocks run at the same speed within 1 % (the drift factor) and servers
// keep their data. The lock survives the loss of a minority.
//
// # What it does not guarantee, and what the token is for
//
// A holder can go on writing after its lock has passed to another process:
//   - it was paused between checking the time and writing (SIGSTOP, garbage
//     collection, a suspended virtual machine, whose monotonic clock may stop);
//   - its write waited in a network buffer;
//   - the clock of a Redis server stepped, and keys expired early;
//   - a majority of the servers restarted without data.
//
// No timeout prevents this, as Martin Kleppmann showed
// (https://martin.kleppmann.com/2016/02/08/how-to-do-distributed-locking.html;
// the reply: https://antirez.com/news/101). So each acquisition returns a fencing
// [Token], higher than all earlier tokens of that resource. The protected resource
// refuses a write whose token is lower than one it has seen. Script does that for
// data in Redis. In SQL it is a column and a condition
// (UPDATE … SET token = $new WHERE token <= $new).
//
// A lock without the token saves duplicate work. Correctness needs both.
//
// # When Redis fails
//
// The package fails closed. Without a quorum no function is called, and the context
// of a running function ends when the lock can no longer be proven.
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
	// ErrTaken means that another process held the resource during every try.
	ErrTaken = errors.New("lock: taken")
	// ErrUnavailable means that fewer than a quorum of the nodes answered in time.
	ErrUnavailable = errors.New("lock: no quorum of Redis nodes")
	// ErrLost means that the lock could no longer be proven while the function ran:
	// another process may have held it meanwhile. It is also the cause of the
	// function's cancelled context.
	ErrLost = errors.New("lock: lost")
)

// Options configures a Locker. The zero value works.
type Options struct {
	Retries    int           // after the first try; default 10, negative: none
	RetryDelay time.Duration // between tries; default 200 ms
	Jitter     time.Duration // maximum random addition to RetryDelay; default half of it
	// ExtendWithin is the remaining validity at which a lock is extended; default
	// 500 ms, at most a third of the ttl. An outage of Redis that lasts longer than
	// this cancels the running function.
	ExtendWithin time.Duration
	// Budget is the time limit of one step on one node; default 200 ms, at most a
	// tenth of the ttl. A node that hangs costs the whole budget four times per lock;
	// a node that refuses connections costs nothing.
	Budget time.Duration
	JobTTL time.Duration // TTL of the lock of RunOncePerPeriod; default 30 s
	Log    *slog.Logger  // default: discarded
}

// minTTL leaves a node 10 ms to answer, a tenth of it.
const minTTL = 100 * time.Millisecond

// driftFactor is how much faster a node's clock may run than this process's.
// roundingDrift is how early a key may expire because Redis counts milliseconds.
const (
	driftFactor   = 0.01
	roundingDrift = 2 * time.Millisecond
)

// Locker acquires locks on a fixed set of nodes. It is safe for concurrent use. It
// has nothing to close; the caller closes the clients.
type Locker struct {
	// Static after construction.
	nodes   []redis.UniversalClient
	quorum  int
	redsync *redsync.Redsync
	o       Options

	// highest is the highest token that this process has issued.
	highest atomic.Int64

	acquired, taken, unavailable, lost, extended, unreleased atomic.Uint64
}

// New returns a Locker on one or more Redis servers that do not replicate each
// other. A quorum is more than half of them, so an even number survives no more
// failures than the odd number below it. With one server the lock is as available
// and as durable as that server.
//
// The clients must not retry (MaxRetries -1), because a retried SET NX reports the
// caller's own lock as another's. They must obey contexts (ContextTimeoutEnabled),
// or Budget has no effect. New panics without a client.
func New(nodes []redis.UniversalClient, o Options) *Locker {
	if len(nodes) == 0 {
		panic("lock: no Redis client")
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

func setDefault(d *time.Duration, value time.Duration) {
	if *d <= 0 {
		*d = value
	}
}

// Stats holds counters since New.
type Stats struct {
	Acquired    uint64 // locks acquired
	Taken       uint64 // refused because another process held the resource
	Unavailable uint64 // refused for lack of a quorum
	Lost        uint64 // acquired, and no longer provable before the function returned
	Extended    uint64 // successful extensions
	Unreleased  uint64 // releases that failed; the TTL ends these locks
}

// Stats returns the counters.
func (l *Locker) Stats() Stats {
	return Stats{
		Acquired: l.acquired.Load(), Taken: l.taken.Load(), Unavailable: l.unavailable.Load(),
		Lost: l.lost.Load(), Extended: l.extended.Load(), Unreleased: l.unreleased.Load(),
	}
}

func unavailable(operation string, err error) error {
	return fmt.Errorf("%s: %w: %w", operation, ErrUnavailable, err)
}
