package foreign

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"herald/internal/redisx"
	"herald/sessions"
)

// Pattern is where a Redis with keyspace notifications tells what happens to
// sessions (redis.io, "Redis keyspace notifications"), as PSUBSCRIBE takes it.
// Without notifications nothing is ever said there.
func (s *Store) Pattern(db int) string {
	escaped := strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`).Replace(s.prefix)
	return keyspace(db) + escaped + "*"
}

func keyspace(db int) string { return "__keyspace@" + strconv.Itoa(db) + "__:" }

// Changed returns the handle of the session that a message on a channel of
// Pattern is about, if the event may have ended the session or given it to
// another user. Anyone with access to Redis may publish there: it is a reason to
// ask, and no answer.
func (s *Store) Changed(channel, event string) (handle string, ok bool) {
	switch event {
	case "expire", "persist": // its life is another, and its expiry an event of its own
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

// Notified reports whether Redis tells at once when a session is deleted or
// expires. It fails where CONFIG is refused, as it is by many hosted ones.
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
