// Package idempotent runs a piece of work once per key, however often it is requested,
// and replays the recorded result: "process this payment once". Its header functions
// follow draft-ietf-httpapi-idempotency-key-header.
//
// # What it does
//
// [Processor.Do] claims the key under a lease in Redis, runs the work, extends the lease
// meanwhile and records the result. Later calls get the recorded result. Concurrent
// calls get a [RunningError] with the time after which to retry. A key that was used
// with another request gets [ErrMismatch].
//
// # Guarantees
//
// At most one attempt runs at a time, unless one is paused beyond its lease. At most one
// result is recorded. After that no attempt starts for as long as the record is kept.
//
// # Limits
//
// No such protocol can give more than at-least-once execution. A process that dies after
// its work and before the record has done the work, and the next attempt does it again.
// To take effect exactly once, the work itself must do one of these:
//
//   - pass the key on, if the target accepts one (a payment provider's Idempotency-Key);
//   - pass on the fencing token (Attempt.Token), if the target refuses a token smaller
//     than the largest it has seen, and one that it has already processed;
//   - if the effect is in the same Redis server, check the token in the record and keep
//     the outcome there, in the script that has the effect (Attempt.Key). This is exact.
//
// Why a lease alone is not enough: Martin Kleppmann, "How to do distributed locking"
// (2016), https://martin.kleppmann.com/2016/02/08/how-to-do-distributed-locking.html.
//
// # When Redis fails
//
// Do refuses before the work starts (ErrUnavailable). If Redis fails between work and
// record, Do returns the result together with ErrNotRecorded.
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
	// ErrUnavailable means that Redis did not answer within the budget and the work was
	// not started. If only the reply was lost, the key stays claimed until the lease
	// ends.
	ErrUnavailable = errors.New("idempotent: Redis is not available")
	// ErrMismatch means that the key was used with another fingerprint before.
	ErrMismatch = errors.New("idempotent: key used with another request")
	// ErrSuperseded means that the work was done, but its lease had ended and a later
	// attempt has claimed the key. The later attempt's result counts.
	ErrSuperseded = errors.New("idempotent: a later attempt has the key")
	// ErrNotRecorded means that the work was done and its result is returned, but Redis
	// did not record it. The next attempt repeats the work.
	ErrNotRecorded = errors.New("idempotent: done, but not recorded")
)

// RunningError means that another attempt at the key is running.
type RunningError struct {
	// RetryAfter is the time until its lease ends if its process has died. A live
	// attempt may finish before, or extend its lease.
	RetryAfter time.Duration
}

func (e *RunningError) Error() string {
	return fmt.Sprintf("idempotent: another attempt is running, its lease ends in %v", e.RetryAfter)
}

// Options configures a Processor. The zero value works.
type Options struct {
	Lease  time.Duration // of an attempt, extended while the work runs; default 30 s
	Keep   time.Duration // lifetime of keys and results, at least Lease; default 7 days
	Budget time.Duration // time limit of one call to Redis; default 400 ms
}

// Processor runs work once per key of a namespace. It is cheap to create and safe for
// concurrent use.
type Processor struct {
	rdb       redis.UniversalClient
	namespace string
	o         Options
}

//go:embed claim.lua
var claimSource string

//go:embed lease.lua
var leaseSource string

//go:embed record.lua
var recordSource string

var (
	claimScript  = redis.NewScript(claimSource)
	leaseScript  = redis.NewScript(leaseSource)
	recordScript = redis.NewScript(recordSource)
)

// New returns a processor for a namespace; equal keys of different namespaces are
// independent. rdb must not retry (MaxRetries -1) and must obey contexts
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

// Attempt is one execution of the work.
type Attempt struct {
	// Token is a fencing token, larger than those of all earlier attempts at the key.
	Token int64
	// Key is the record in Redis, a hash. Its field "token" equals Token until a later
	// attempt starts. The script that has the work's effect may check that, and keep
	// its outcome in another field for a later attempt.
	Key string
}

// Work does the work and returns its result. ctx ends with the caller's, or when the
// attempt has lost its lease; Work should then stop. After an error no result is
// recorded and the key is free for another attempt at once. So a failure that must not
// be retried is a result, not an error.
type Work func(ctx context.Context, a Attempt) ([]byte, error)

// Do runs the work for the key and returns its result, or returns the recorded result
// with replayed == true. print identifies the request (Fingerprint): the same key with
// another print is ErrMismatch, even after a failed attempt. Do returns an error of the
// work unchanged.
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
	result, err = p.execute(ctx, a, work)
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
