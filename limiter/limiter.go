// Package limiter limits how much a subject may do in any window of time: a
// sliding window in Redis, exact by Redis's clock, shared by every node. It also
// says which subject a client's address is. It knows no HTTP framework.
//
// What it guarantees while Redis answers: no interval of length Limit.Per, at
// whatever position, holds more than Limit.N of admitted cost, whatever the
// nodes' clocks say; a denied request counts nothing; RetryAfter is the exact
// moment from which the same request would be admitted if no other came before.
// While Redis does not answer, everything is allowed.
package limiter

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"herald/internal/redisx"

	"github.com/redis/go-redis/v9"
)

// Options of a Limiter. The zero value works.
type Options struct {
	// Budget is the longest that Allow waits for Redis before it fails open.
	// Default 100ms.
	Budget time.Duration

	// Log gets a warning when Allow fails open, at most one a second.
	// Default: discarded.
	Log *slog.Logger
}

// Limiter holds one limit for one scope. It is safe for concurrent use, has no
// goroutine and needs no closing.
type Limiter struct {
	// Static after construction.
	scope  string
	limit  Limit
	budget time.Duration
	log    *slog.Logger
	window window

	lines lines

	allowed, denied, failedOpen atomic.Uint64
	warnings                    redisx.Throttle
}

// New makes a limiter for scope, which names its keys and its policy in headers:
// 1 to 64 of [A-Za-z0-9._@-]. A limiter with the zero Limit allows everything and
// never asks. New panics if scope or limit cannot work: both come from the
// program or through ParseLimit.
//
// rdb must not retry (MaxRetries -1: a retry after a lost answer counts twice)
// and must heed the context's deadline (ContextTimeoutEnabled), without which
// Options.Budget means nothing.
func New(rdb redis.UniversalClient, scope string, limit Limit, o Options) *Limiter {
	if scope == "" || len(scope) > 64 || redisx.Escape(scope) != scope {
		panic(fmt.Sprintf("limiter: scope %q is not 1 to 64 of [A-Za-z0-9._@-]", scope))
	}
	if err := limit.check(); err != nil {
		panic("limiter: " + err.Error())
	}
	if o.Budget <= 0 {
		o.Budget = 100 * time.Millisecond
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	l := &Limiter{
		scope: scope, limit: limit, budget: o.Budget, log: o.Log,
		window: newWindow(rdb, limit),
		lines:  lines{busy: make(map[string][]*request)},
	}
	return l
}

// Stats counts calls of Allow; each is in exactly one of the three.
type Stats struct {
	Allowed    uint64 // by Redis's answer, or because nothing is limited
	Denied     uint64
	FailedOpen uint64
}

// Stats since New.
func (l *Limiter) Stats() Stats {
	return Stats{Allowed: l.allowed.Load(), Denied: l.denied.Load(), FailedOpen: l.failedOpen.Load()}
}

// Allow asks whether subject may spend n now; if so, n is counted, all of it. An n
// of 0, or below, is allowed, counts nothing and tells how things stand. An n
// above the limit is never allowed, not even without Redis.
//
// It fails open when Redis gives no answer within the budget, gives an error, or
// when ctx ends first; n may have been counted then, and if ctx was cancelled the
// caller is expected not to go on. It returns within the budget: it does not
// always return at once when ctx ends, as others may be waiting for its answer.
func (l *Limiter) Allow(ctx context.Context, subject string, n int) Decision {
	d := Decision{Allowed: true}
	if !l.limit.Off() {
		d = l.decide(ctx, windowKey(l.scope, subject), max(n, 0))
	}
	l.count(d)
	return d
}

// Lua defines admit(key, costs), a function for scripts that do what is limited in
// the same step: it asks and counts as Allow does, for costs in order of arrival,
// comma-separated, and returns what Decide reads. It is "" if nothing is limited.
// Such a script should call it by pcall, and go on without an answer if it fails.
func (l *Limiter) Lua() string {
	if l.limit.Off() {
		return ""
	}
	return fmt.Sprintf("%slocal function admit(key, costs) return sliding_window(key, %d, %d, costs) end\n",
		windowSource, l.limit.N, l.limit.Per.Microseconds())
}

// Key is what admit is given for the subject.
func (l *Limiter) Key(subject string) string { return windowKey(l.scope, subject) }

// Decide reads what admit returned for one cost n: Redis's clock in µs, which
// comes first of all, and the three numbers of that cost. Without them, because
// of err, it fails open.
func (l *Limiter) Decide(n int, clock int64, numbers [3]int64, err error) Decision {
	var d Decision
	if err != nil {
		d = l.failOpen(n, err)
	} else {
		d = l.decision(n, replies{clock, numbers[0], numbers[1], numbers[2]}.verdict(0))
	}
	l.count(d)
	return d
}

func (l *Limiter) count(d Decision) {
	switch {
	case d.FailedOpen:
		l.failedOpen.Add(1)
	case d.Allowed:
		l.allowed.Add(1)
	default:
		l.denied.Add(1)
	}
}

func (l *Limiter) decision(n int, v verdict) Decision {
	return Decision{
		Allowed: v.wait == 0, TooCostly: n > l.limit.N,
		Scope: l.scope, Limit: l.limit, Now: v.clock,
		Remaining: v.remaining, ResetAfter: v.reset, RetryAfter: v.wait,
	}
}

// failOpen answers without Redis, as if the window had been empty.
func (l *Limiter) failOpen(n int, err error) Decision {
	v := verdict{clock: time.Now(), remaining: l.limit.N - n, reset: l.limit.Per}
	if n > l.limit.N {
		v = verdict{clock: v.clock, remaining: l.limit.N, wait: l.limit.Per}
	}
	d := l.decision(n, v)
	d.FailedOpen = d.Allowed
	if d.FailedOpen {
		l.warn(err)
	}
	return d
}

func (l *Limiter) warn(err error) {
	if !l.warnings.Allow() {
		return
	}
	l.log.Warn("rate limiter fails open", "scope", l.scope, "err", err, "total", l.failedOpen.Load()+1)
}
