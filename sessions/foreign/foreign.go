// Package foreign reads the log-in sessions of another program in Redis: a JSON string at
// <prefix><id>, with the user's id in it and the key's expiry as the session's. A session
// is live while its key exists and names a user. This package writes nothing but, with
// Options.Slide, the key's expiry. connect-redis renews only that on use, never the JSON,
// so cookie.expires in it is as old as the last change and is ignored. The id is a secret
// and part of the key, so any reader of Redis can use it. Outside this package a session
// is named by its handle, the hex SHA-256 of the id. A Store remembers the ids of sessions
// that were used recently or have a connection (Forget), because a key cannot be computed
// from a handle.
package foreign

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/sessions"
)

// Format is how the other program writes its sessions and their cookie.
type Format string

const (
	// JSON: SETEX session:<id>, the id as it is in the cookie.
	JSON Format = "json"
	// Express is express-session with connect-redis: sess:<id>, and a cookie
	// s:<id>.<signature> (cookie-signature: HMAC-SHA256, base64 without padding).
	Express Format = "express"
)

// Limits of a session.
const (
	MinIDBytes = 8
	MaxIDBytes = 256      // of [A-Za-z0-9_-], so that an id cannot change the meaning of a key
	MaxBytes   = 64 << 10 // of a session's JSON; a longer one counts as no session
	MinSecret  = 8        // bytes of a cookie secret
)

// Options of a Store. The zero value works for JSON; Express needs Secrets.
type Options struct {
	Prefix   string        // of the keys; default session: or sess:, by the format
	UserPath string        // where the user's id is, names joined by dots; default userId or passport.user
	Secrets  []string      // Express: any of these may have signed the cookie
	Slide    time.Duration // a use extends the key's TTL to this, unless the key has no TTL; default 0: nothing is written
	Budget   time.Duration // longest that one Redis call may take; default 400 ms
}

// Session is a live session.
type Session struct {
	Handle, UserID string
	ExpiresAt      time.Time // by Redis's clock, in ms, UTC; zero: the key has no expiry
}

// Store reads the sessions of another program in one Redis. It is safe for concurrent use
// and needs no closing; the caller owns the client. Its errors are sessions.ErrNotFound
// for a session that is not live or has the wrong form, and redisx.ErrUnavailable if Redis
// did not answer, which says nothing about the session.
type Store struct {
	// Static after construction.
	rdb    redis.UniversalClient
	format Format
	prefix string
	path   []string
	keys   [][]byte // the secrets
	slide  time.Duration
	budget time.Duration

	mu    sync.Mutex
	known map[string]*known // guarded by mu: handle → what is behind it
}

// known is a session that was used through this Store.
type known struct {
	id    string
	users []string // users that it named when it was used: one, unless it changed hands
	used  time.Time
}

// New returns a Store on rdb, which must not retry and must respect contexts
// (ContextTimeoutEnabled). It does not call Redis.
func New(rdb redis.UniversalClient, format Format, o Options) *Store {
	prefix, path := "session:", "userId"
	if format == Express {
		prefix, path = "sess:", "passport.user"
	}
	s := &Store{rdb: rdb, format: format, prefix: prefix, slide: o.Slide, budget: 400 * time.Millisecond, known: map[string]*known{}}
	if o.Prefix != "" {
		s.prefix = o.Prefix
	}
	if o.UserPath != "" {
		path = o.UserPath
	}
	s.path = strings.Split(path, ".")
	for _, secret := range o.Secrets {
		s.keys = append(s.keys, []byte(secret))
	}
	if o.Budget > 0 {
		s.budget = o.Budget
	}
	return s
}

// Use returns the live session of a cookie and extends its expiry by Options.Slide. A
// cookie of the wrong form, or without a valid signature, is ErrNotFound without a call to
// Redis.
func (s *Store) Use(ctx context.Context, cookie string) (Session, error) {
	id, session, err := s.find(ctx, cookie, s.slide)
	if err != nil {
		return Session{}, fmt.Errorf("use session: %w", err)
	}
	s.remember(id, session)
	return session, nil
}

// Peek is Use without sliding.
func (s *Store) Peek(ctx context.Context, cookie string) (Session, error) {
	_, session, err := s.find(ctx, cookie, 0)
	if err != nil {
		return Session{}, fmt.Errorf("peek at session: %w", err)
	}
	return session, nil
}

func (s *Store) find(ctx context.Context, cookie string, slide time.Duration) (id string, _ Session, _ error) {
	id, ok := s.sessionID(cookie)
	if !ok {
		return "", Session{}, sessions.ErrNotFound
	}
	rows, err := s.read(ctx, []string{s.prefix + id}, slide)
	if err != nil {
		return "", Session{}, err
	}
	session, ok := s.decode(id, rows[0])
	if !ok {
		return "", Session{}, sessions.ErrNotFound
	}
	return id, session, nil
}

func (s *Store) decode(id string, r row) (Session, bool) {
	userID, ok := userAt(r.value, s.path)
	return Session{Handle: sessions.Handle(id), UserID: userID, ExpiresAt: r.expires}, ok
}

// Forever is how far ahead Expiries puts the end of a session that has none.
const Forever = 100 * 365 * 24 * time.Hour

// group is the most sessions of one call.
const group = 250

// Expiries returns, for each session, when it expires unless it is used before;
// the zero time if it is gone or no longer that user's. It slides nothing. It is
// for looking many open connections' sessions up again: at most 250 in a round
// trip, and about a megabyte.
func (s *Store) Expiries(ctx context.Context, held []sessions.Ref) ([]time.Time, error) {
	ids := s.ids(held)
	expiries := make([]time.Time, len(held))
	for at := 0; at < len(held); {
		keys := make([]string, min(group, len(held)-at))
		for i := range keys {
			keys[i] = s.prefix + ids[at+i]
		}
		rows, err := s.read(ctx, keys, 0)
		if err != nil {
			return nil, fmt.Errorf("expiries of sessions: %w", err)
		}
		for _, r := range rows {
			if session, ok := s.decode(ids[at], r); ok && ids[at] != "" && session.UserID == held[at].UserID {
				expiries[at] = session.ExpiresAt
				if session.ExpiresAt.IsZero() {
					expiries[at] = time.Now().Add(Forever)
				}
			}
			at++
		}
	}
	return expiries, nil
}

var errAnswer = errors.New("unexpected answer")
