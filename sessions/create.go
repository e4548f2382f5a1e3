package sessions

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
)

//go:embed create.lua
var createLua string

var createScript = newScript(sessionLua, indexLua, membersLua, createLua)

// Create creates a session of a user and returns its secret id, which is not stored and
// can't be retrieved later. Members of data that are null are left out.
//
// After redisx.ErrUnavailable the session may exist without anyone having its id. List
// shows it until it expires.
func (s *Store) Create(ctx context.Context, userID string, data map[string]json.RawMessage) (id string, _ Session, _ error) {
	id = newID()
	session, err := s.create(ctx, Handle(id), userID, data)
	if err != nil {
		return "", Session{}, fmt.Errorf("create session: %w", err)
	}
	return id, session, nil
}

func (s *Store) create(ctx context.Context, handle, userID string, data map[string]json.RawMessage) (Session, error) {
	if err := checkUser(userID); err != nil {
		return Session{}, err
	}
	packed, err := pack(data)
	if err != nil {
		return Session{}, err
	}
	v, err := s.run(ctx, createScript, []string{sessionKey(handle), indexKey(userID)},
		handle, userID, s.ttl.Milliseconds(), s.maxAge.Milliseconds(), packed)
	if err != nil {
		return Session{}, err
	}
	return answered(handle, v)
}
