package sessions

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
)

//go:embed update.lua
var updateLua string

var updateScript = newScript(sessionLua, membersLua, updateLua)

// Update merges members into a live session's data and returns the result. The merge is
// shallow: a null member is removed, any other replaces the old one (RFC 7396 at the top
// level only). Concurrent updates of different members are all kept; of the same member,
// the last one wins.
//
// The expiry does not slide, because a write by the backend is not a use by the user. It
// must not keep an abandoned session alive.
func (s *Store) Update(ctx context.Context, handle string, data map[string]json.RawMessage) (Session, error) {
	session, err := s.update(ctx, handle, data)
	if err != nil {
		return Session{}, fmt.Errorf("update session: %w", err)
	}
	return session, nil
}

func (s *Store) update(ctx context.Context, handle string, data map[string]json.RawMessage) (Session, error) {
	packed, err := pack(data)
	if err != nil {
		return Session{}, err
	}
	if !ValidHandle(handle) {
		return Session{}, ErrNotFound
	}
	v, err := s.run(ctx, updateScript, []string{sessionKey(handle)}, packed, MaxMembers, MaxDataBytes)
	switch {
	case err != nil:
		return Session{}, err
	case v == "members":
		return Session{}, errMembers
	case v == "bytes":
		return Session{}, errBytes
	}
	return answered(handle, v)
}
