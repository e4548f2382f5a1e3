// Package sessions keeps log-in sessions in Redis.
//
// A session is known by two names. The id is the secret that the browser holds:
// 256 random bits as 64 lower-case hex digits, given out once by Create. The
// handle is the hex SHA-256 of that text; only the handle is ever sent to
// Redis, logged or shown, so that whoever reads the database can log in as
// nobody.
//
// Every operation is one script and one round trip, so it happens wholly or not
// at all: an update or a use never brings back a session that was revoked, and
// two updates at once both survive. Redis's clock decides, never this process's.
//
// The scripts compute the name of the index key from the user id that the
// session itself holds, and RevokeAll and List the names of session keys from
// the index. That works on one primary, with or without Sentinel and replicas.
// It does not work on Redis Cluster, which demands that a script declare its keys.
//
// When Redis cannot be asked, every operation fails with redisx.ErrUnavailable within
// Options.Budget; nothing is cached and nobody is taken for logged out.
package sessions

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/internal/redisx"
	"herald/notify"
)

var (
	// ErrNotFound: there is no such live session. It never existed, ended, was
	// revoked, or the id or handle asked for is not even of the right form.
	ErrNotFound = errors.New("no such session")

	// ErrData: the data members are refused; the text says which and why.
	ErrData = errors.New("session data refused")
)

// Session is what Redis holds about one session, at the time of the call.
// All times are Redis's, in whole milliseconds, UTC.
type Session struct {
	Handle, UserID        string
	CreatedAt, LastUsedAt time.Time
	ExpiresAt             time.Time // unless used before; never after AbsoluteExpiresAt
	AbsoluteExpiresAt     time.Time

	// Data holds each member's JSON byte for byte as it was given. It is nil only
	// where List says so.
	Data map[string]json.RawMessage
}

// Options of a Store. The zero value works.
type Options struct {
	TTL    time.Duration // from the last use to the end; default 24 h, at least 1 ms
	MaxAge time.Duration // from creation to the end, whatever the use; default 30 days, at least 1 ms
	Budget time.Duration // longest that one Redis call may take; default 400 ms
}

// Store is the sessions of one Redis. It is safe for concurrent use and holds
// nothing that needs closing; the client stays the caller's.
type Store struct {
	// Static after construction.
	rdb    redis.UniversalClient
	ttl    time.Duration
	maxAge time.Duration
	budget time.Duration
}

// New returns a Store on rdb, which must not retry (MaxRetries -1: a retried
// Create makes two sessions) and must heed contexts (ContextTimeoutEnabled:
// else Budget counts for nothing). It does not speak to Redis.
func New(rdb redis.UniversalClient, o Options) *Store {
	return &Store{
		rdb:    rdb,
		ttl:    orDefault(o.TTL, 24*time.Hour),
		maxAge: orDefault(o.MaxAge, 30*24*time.Hour),
		budget: orDefault(o.Budget, 400*time.Millisecond),
	}
}

// orDefault also lifts d to a millisecond, the smallest life Redis can express.
func orDefault(d, otherwise time.Duration) time.Duration {
	if d <= 0 {
		return otherwise
	}
	return max(d, time.Millisecond)
}

// run asks Redis within the budget. A script that answers nil found no session.
func (s *Store) run(ctx context.Context, script *redis.Script, keys []string, args ...any) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, s.budget)
	defer cancel()
	v, err := script.Run(ctx, s.rdb, keys, args...).Result()
	if errors.Is(err, redis.Nil) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, redisx.Unavailable("sessions", err)
	}
	return v, nil
}

func checkUser(userID string) error {
	if !notify.ValidUserID(userID) {
		return fmt.Errorf("user id: %w", notify.ErrUserID)
	}
	return nil
}
