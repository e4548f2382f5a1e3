package sessions

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/internal/redisx"
)

//go:embed session.lua
var sessionLua string

//go:embed index.lua
var indexLua string

//go:embed members.lua
var membersLua string

//go:embed announce.lua
var announceLua string

// newScript joins shared parts and a script's own source.
func newScript(parts ...string) *redis.Script {
	return redis.NewScript(strings.Join(parts, "\n"))
}

// answered parses {expiry in ms, {field, value, ...}}.
func answered(handle string, v any) (Session, error) {
	if pair, ok := v.([]any); ok && len(pair) == 2 {
		return decode(handle, pair[0], pair[1])
	}
	return Session{}, unexpected(v)
}

// decode makes a Session of what a script read. A session whose life was over
// before its script was (a TTL of a few ms) has no fields left: ErrNotFound.
func decode(handle string, expires, fields any) (Session, error) {
	ms, ok := expires.(int64)
	list, ok2 := fields.([]any)
	if !ok || !ok2 {
		return Session{}, unexpected(fields)
	}
	if len(list) == 0 {
		return Session{}, ErrNotFound
	}
	s := Session{Handle: handle, ExpiresAt: unixMilli(ms), Data: map[string]json.RawMessage{}}
	for i := 0; i+1 < len(list); i += 2 {
		name, ok := list[i].(string)
		value, ok2 := list[i+1].(string)
		if !ok || !ok2 {
			return Session{}, unexpected(fields)
		}
		if err := s.set(name, value); err != nil {
			return Session{}, redisx.Unavailable("sessions", fmt.Errorf("field %q: %w", name, err))
		}
	}
	return s, nil
}

// set decodes one field of the hash and ignores unknown fields.
func (s *Session) set(name, value string) (err error) {
	switch name {
	case "userId":
		s.UserID = value
	case "createdAt":
		s.CreatedAt, err = parseMilli(value)
	case "lastUsedAt":
		s.LastUsedAt, err = parseMilli(value)
	case "absoluteExpiresAt":
		s.AbsoluteExpiresAt, err = parseMilli(value)
	default:
		if member, ok := strings.CutPrefix(name, "data:"); ok {
			s.Data[member] = json.RawMessage(value)
		}
	}
	return err
}

func parseMilli(s string) (time.Time, error) {
	ms, err := strconv.ParseInt(s, 10, 64)
	return unixMilli(ms), err
}

func unixMilli(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

// unexpected names only the type, because the value may be a user's data.
func unexpected(v any) error {
	return redisx.Unavailable("sessions", errors.New("unexpected reply of type "+fmt.Sprintf("%T", v)))
}
