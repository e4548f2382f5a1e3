// Package limiter provides distributed rate limiting: an exact sliding window in Redis,
// by Redis's clock, shared by all nodes. It also maps a client's address to a subject.
// It depends on no HTTP framework.
//
// While Redis answers, no interval of length Limit.Per holds more than Limit.N of
// admitted cost, whatever the nodes' clocks show. A denied request counts nothing.
// RetryAfter is exact: the same request passes from then on if no other comes first.
// While Redis does not answer, everything up to the limit itself is allowed.
package limiter

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/internal/redisx"
)

// Options of a Limiter. The zero value works.
type Options struct {
	// Budget is the longest that Allow waits for Redis before it fails open.
	// Default 100ms.
	Budget time.Duration

	// Merge makes concurrent requests for one subject share a run of the script. It is
	// for limits with few, busy subjects, such as API keys. New's rdb must then be a
	// redis.UniversalClient, or New panics. Without Merge each request is a script by itself, which a
	// redisx.Client sends together with other scripts.
	Merge bool

	// Log gets a warning when a request passes because the limiter failed open, at most
	// one a second. Default: discarded.
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
	window *window
	ask    func(ctx context.Context, key string, cost int) (replies, error)

	allowed, denied, failedOpen atomic.Uint64
	warnings                    redisx.Throttle
}

// New returns a limiter for scope, which names its keys and its policy in headers:
// 1 to 64 of [A-Za-z0-9._@-]. A limiter with the zero Limit allows everything and
// never calls Redis. New panics on a scope or limit out of range: both come from the
// program or through ParseLimit.
//
// rdb must not retry (MaxRetries -1), because a retry after a lost answer counts twice.
// It must respect the context's deadline (ContextTimeoutEnabled), or Options.Budget has
// no effect. With a redisx.Client concurrent calls share round trips.
func New(rdb redis.Scripter, scope string, limit Limit, o Options) *Limiter {
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
	}
	l.ask = l.window.ask
	if o.Merge {
		l.window.merge()
		l.ask = l.window.merged
	}
	return l
}

// Stats counts requests, each in at most one of the three.
type Stats struct {
	Allowed    uint64 // by Redis's answer, or because nothing is limited
	Denied     uint64
	FailedOpen uint64 // let through because Redis gave no answer
}

// Stats returns the counts since New.
func (l *Limiter) Stats() Stats {
	return Stats{Allowed: l.allowed.Load(), Denied: l.denied.Load(), FailedOpen: l.failedOpen.Load()}
}

// Allow reports whether subject may spend n now, and counts all of n if so. An n of 0
// or below is allowed, counts nothing and reports the current state. An n above the
// limit is never allowed, not even without Redis.
//
// Allow fails open when Redis does not answer within the budget, answers with an error,
// or when ctx ends first. Then n may have been counted; the caller of a cancelled Allow
// is expected to stop. It returns within the budget, but not always at once when ctx is
// cancelled: see redisx.Group.
func (l *Limiter) Allow(ctx context.Context, subject string, n int) Decision {
	d := l.Ask(ctx, subject, n)
	l.CountFailedOpen(d)
	return d
}

// Ask is Allow for a request that may still fail for another reason: a decision that
// failed open is neither in Stats nor logged before CountFailedOpen.
func (l *Limiter) Ask(ctx context.Context, subject string, n int) Decision {
	d := Decision{Allowed: true}
	if !l.limit.Off() {
		d = l.decide(ctx, windowKey(l.scope, subject), max(n, 0))
	}
	l.count(d)
	return d
}

// CountFailedOpen counts and logs a decision that failed open. Call it when the request
// went through. Other decisions are counted already, and stay as they are.
func (l *Limiter) CountFailedOpen(d Decision) {
	if !d.FailedOpen {
		return
	}
	total := l.failedOpen.Add(1)
	if l.warnings.Allow() {
		l.log.Warn("rate limiter fails open", "scope", l.scope, "err", d.cause, "total", total)
	}
}

func (l *Limiter) decide(ctx context.Context, key string, n int) Decision {
	ctx, cancel := context.WithTimeout(ctx, l.budget)
	defer cancel()
	r, err := l.ask(ctx, key, n)
	if err != nil {
		return l.failOpen(n, err)
	}
	return l.decision(n, r.verdict(0))
}

// Lua returns the source of admit(key, costs), a function for scripts that act in the
// same step: it decides and counts as Allow does, for comma-separated costs in order of
// arrival, and returns what Decide reads. It is "" if nothing is limited. The script
// should call it through pcall, and go on without an answer if it fails.
func (l *Limiter) Lua() string {
	if l.limit.Off() {
		return ""
	}
	return fmt.Sprintf("%slocal function admit(key, costs) return sliding_window(key, %d, %d, costs) end\n",
		windowSource, l.limit.N, l.limit.Per.Microseconds())
}

// Key returns the subject's key, the first argument of admit.
func (l *Limiter) Key(subject string) string { return windowKey(l.scope, subject) }

// Decide reads what admit returned for one cost n: Redis's clock in µs and the three
// numbers of that cost. If err is the reason why there are none, it fails open. It counts
// the decision as Ask does.
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

// count counts a decision, unless it failed open.
func (l *Limiter) count(d Decision) {
	switch {
	case d.FailedOpen:
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

// failOpen decides without Redis, as if the window were empty.
func (l *Limiter) failOpen(n int, cause error) Decision {
	v := verdict{clock: time.Now(), remaining: l.limit.N - n, reset: l.limit.Per}
	if n > l.limit.N {
		v = verdict{clock: v.clock, remaining: l.limit.N, wait: l.limit.Per}
	}
	d := l.decision(n, v)
	if d.Allowed {
		d.FailedOpen, d.cause = true, cause
	}
	return d
}
