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

// Update merges members into a live session's data and returns the result. The
// merge is shallow: a member that is null is removed, any other replaces the
// member of that name whole (RFC 7396 at the top level only). Updates at the same
// time that touch different members all survive; of those that touch the same
// member the last one does.
//
// The expiry does not slide: a backend that writes data is not the user's use,
// and must not keep alive a session that nobody comes back to.
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
