package foreign

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"herald/internal/redisx"
	"herald/sessions"
)

// Pattern returns the PSUBSCRIBE pattern of keyspace notifications about sessions
// (redis.io, "Redis keyspace notifications"). Without notifications it stays silent.
func (s *Store) Pattern(db int) string {
	escaped := strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`).Replace(s.prefix)
	return keyspace(db) + escaped + "*"
}

func keyspace(db int) string { return "__keyspace@" + strconv.Itoa(db) + "__:" }

// Changed returns the handle of the session in a message of Pattern, if the event may have
// ended the session or changed its user. Any program with access to Redis can publish
// there, so the caller must look the session up.
func (s *Store) Changed(channel, event string) (handle string, ok bool) {
	switch event {
	case "expire", "persist": // only the lifetime changed; an expiry has its own event
		return "", false
	}
	at := strings.Index(channel, "__:")
	if at < 0 {
		return "", false
	}
	id, ok := strings.CutPrefix(channel[at+len("__:"):], s.prefix)
	if !ok || !validID(id) {
		return "", false
	}
	return sessions.Handle(id), true
}

// Notified reports whether Redis sends keyspace notifications when a session is deleted or
// expires. It fails where CONFIG is refused, as on many managed servers.
func (s *Store) Notified(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, s.budget)
	defer cancel()
	const name = "notify-keyspace-events"
	config, err := s.rdb.ConfigGet(ctx, name).Result()
	if err != nil {
		return false, fmt.Errorf("keyspace notifications: %w", redisx.Unavailable("sessions", err))
	}
	flags := config[name]
	return strings.Contains(flags, "K") &&
		(strings.Contains(flags, "A") || strings.Contains(flags, "g") && strings.Contains(flags, "x")), nil
}
