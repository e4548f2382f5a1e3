// Package idempotent does a piece of work once for each key, however often it
// is asked for: "process this payment once". The first to ask claims the key
// under a lease, works, and records the result; who asks later gets the result,
// who asks meanwhile is told to come back.
//
// What it guarantees: one attempt at a time, unless one is paused beyond its
// lease; at most one recorded result; after a record no further attempt for as
// long as the record is kept. What no such protocol can: a processor that dies
// after its work and before the record has done the work, and nothing says so.
// The next attempt does it again. So work is done at least once, and it is the
// work's own effect that must make it once, in one of these ways:
//
//   - hand the key to whoever has the effect, if they take one (a payment
//     provider's own Idempotency-Key);
//   - guard it with the fencing token (Attempt.Token): who has the effect
//     refuses a token smaller than the largest it has seen, and one it has done;
//   - if the effect is in the same Redis, have its script check the token in the
//     record and keep its outcome there, in the step that has the effect
//     (Attempt.Key). That is exact.
//
// The token, and why a lease alone does not do: Martin Kleppmann, "How to do
// distributed locking" (2016).
//
// When Redis is down nothing is begun (ErrUnavailable). When it goes down
// between work and record, Do returns the result with ErrNotRecorded.
package idempotent

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

var (
	// ErrUnavailable means that Redis could not be asked within the budget; the
	// work was not begun. If only Redis's answer was lost, the key is claimed
	// until the lease ends.
	ErrUnavailable = errors.New("idempotent: Redis is not available")
	// ErrMismatch means that the key was used before with another fingerprint.
	ErrMismatch = errors.New("idempotent: key used with another request")
	// ErrSuperseded means that the work was done, but that its lease had ended
	// and a later attempt has claimed the key: its result will count.
	ErrSuperseded = errors.New("idempotent: a later attempt has the key")
	// ErrNotRecorded means that the work was done and its result is returned, but
	// that Redis could not record it: the next attempt does the work again.
	ErrNotRecorded = errors.New("idempotent: done, but not recorded")
)

// RunningError means that another attempt has the key.
type RunningError struct {
	// RetryAfter is when its lease ends if its processor has died. One that
	// lives may be done at any time before, or go on for longer.
	RetryAfter time.Duration
}

func (e *RunningError) Error() string {
	return fmt.Sprintf("idempotent: another attempt is running, its lease for %v more", e.RetryAfter)
}

// Options configures a Processor. The zero value works.
type Options struct {
	Lease  time.Duration // an attempt's, extended while it works; default 30 s
	Keep   time.Duration // how long keys and results are kept; default 7 days. Not less than Lease
	Budget time.Duration // the longest a call to Redis may take; default 400 ms
}

// Processor does work once for each key of a namespace. It is cheap to make and
// safe for concurrent use.
type Processor struct {
	rdb       redis.UniversalClient
	namespace string
	o         Options
}

//go:embed claim.lua
var claimSource string

//go:embed hold.lua
var holdSource string

//go:embed record.lua
var recordSource string

var (
	claimScript  = redis.NewScript(claimSource)
	holdScript   = redis.NewScript(holdSource)
	recordScript = redis.NewScript(recordSource)
)

// New returns a processor whose keys meet those of the same namespace only. rdb
// must be configured never to retry (MaxRetries -1) and to obey contexts
// (ContextTimeoutEnabled).
func New(rdb redis.UniversalClient, namespace string, o Options) *Processor {
	if o.Lease == 0 {
		o.Lease = 30 * time.Second
	}
	if o.Keep == 0 {
		o.Keep = 7 * 24 * time.Hour
	}
	o.Keep = max(o.Keep, o.Lease)
	if o.Budget == 0 {
		o.Budget = 400 * time.Millisecond
	}
	return &Processor{rdb: rdb, namespace: namespace, o: o}
}

// Attempt is one try at the work.
type Attempt struct {
	// Token is larger than those of all earlier attempts at the same key.
	Token int64
	// Key is the record in Redis, a hash whose field token is Token as long as no
	// later attempt has begun. A script that has the work's effect may check
	// that, and keep its outcome in a field of its own for a later attempt.
	Key string
}

// Work is what is to be done once. ctx ends when the caller's does, or as soon
// as the attempt is known to have lost its lease; then work should stop. An
// error means that there is no result: the key is free for another attempt at
// once. A failure that must not be tried again is a result.
type Work func(ctx context.Context, a Attempt) ([]byte, error)

// Do returns the result of the work for the key, having done it or, with
// replayed == true, as it was recorded. print identifies what is asked for
// (Fingerprint): the same key with another one is ErrMismatch, even after a
// failed attempt. An error of the work is returned as it is.
func (p *Processor) Do(ctx context.Context, key, print string, work Work) (result []byte, replayed bool, err error) {
	a := Attempt{Key: recordKey(p.namespace, key)}
	verdict, value, err := p.claim(ctx, a.Key, print)
	if err != nil {
		return nil, false, fmt.Errorf("claim: %w: %w", ErrUnavailable, err)
	}
	switch verdict {
	case "done":
		return []byte(value), true, nil
	case "mismatch":
		return nil, false, ErrMismatch
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return nil, false, fmt.Errorf("claim: %w: unexpected reply: %w", ErrUnavailable, err)
	}
	if verdict == "running" {
		return nil, false, &RunningError{RetryAfter: time.Duration(n) * time.Millisecond}
	}
	a.Token = n
	result, err = p.attempt(ctx, a, work)
	return result, false, err
}

func (p *Processor) claim(ctx context.Context, key, print string) (verdict, value string, err error) {
	ctx, cancel := context.WithTimeout(ctx, p.o.Budget)
	defer cancel()
	v, err := claimScript.Run(ctx, p.rdb, []string{key}, print, p.o.Lease.Milliseconds(), p.o.Keep.Milliseconds()).StringSlice()
	if err != nil {
		return "", "", err
	}
	if len(v) == 1 {
		v = append(v, "")
	}
	if len(v) != 2 {
		return "", "", fmt.Errorf("unexpected reply of %d parts", len(v))
	}
	return v[0], v[1], nil
}
