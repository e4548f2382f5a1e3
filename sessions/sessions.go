// Package sessions stores log-in sessions in Redis: create, use, update, list, and revoke
// one or all of a user.
//
// A session has two names. The id is the browser's secret: 256 random bits as 64
// lower-case hex digits, returned once by Create. The handle is the hex SHA-256 of that
// text. Only the handle is sent to Redis, logged or shown, so read access to the database
// does not allow anyone to log in.
//
// Every operation is one script, atomic in one round trip. An update or a use never
// revives a revoked session, and of two concurrent updates neither is lost. Redis's clock
// decides, never this process's.
//
// The scripts build the name of the index key from the user id in the session, and the
// names of session keys from the index. That works on one primary, with or without
// Sentinel and replicas. It does not work on Redis Cluster, which requires scripts to
// declare their keys.
//
// While Redis does not answer, every operation fails with redisx.ErrUnavailable within
// Options.Budget. Nothing is cached, and an outage is never reported as "logged out".
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
	// ErrNotFound means that there is no such live session: it never existed, has
	// expired or was revoked, or the id or handle is malformed.
	ErrNotFound = errors.New("no such session")

	// ErrData means that a data member was refused; the text says which and why.
	ErrData = errors.New("session data refused")
)

// Session is the state of a session at the time of the call. Times are by Redis's clock,
// in milliseconds, UTC.
type Session struct {
	Handle, UserID        string
	CreatedAt, LastUsedAt time.Time
	ExpiresAt             time.Time // unless used before; never after AbsoluteExpiresAt
	AbsoluteExpiresAt     time.Time

	// Data has each member's JSON byte for byte as it was set. Only List may leave it nil.
	Data map[string]json.RawMessage
}

// Options configures a Store. The zero value works.
type Options struct {
	TTL    time.Duration // from the last use to the end; default 24 h, at least 1 ms
	MaxAge time.Duration // from creation to the end, whatever the use; default 30 days, at least 1 ms
	Budget time.Duration // time limit of one call to Redis; default 400 ms
}

// Store reads and writes the sessions of one Redis server. It is safe for concurrent use.
// It has nothing to close; the caller closes the client.
type Store struct {
	// Static after construction.
	rdb    redis.UniversalClient
	ttl    time.Duration
	maxAge time.Duration
	budget time.Duration
}

// New returns a Store. rdb must not retry (MaxRetries -1), because a retried Create
// creates two sessions. It must obey contexts (ContextTimeoutEnabled), or Budget has no
// effect. New does not contact Redis.
func New(rdb redis.UniversalClient, o Options) *Store {
	return &Store{
		rdb:    rdb,
		ttl:    orDefault(o.TTL, 24*time.Hour),
		maxAge: orDefault(o.MaxAge, 30*24*time.Hour),
		budget: orDefault(o.Budget, 400*time.Millisecond),
	}
}

// orDefault also raises d to 1 ms, the shortest lifetime in Redis.
func orDefault(d, value time.Duration) time.Duration {
	if d <= 0 {
		return value
	}
	return max(d, time.Millisecond)
}

// run runs a script within the budget. A nil reply is ErrNotFound.
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
