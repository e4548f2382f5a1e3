package sessions

import (
	"context"
	_ "embed"
	"fmt"
)

//go:embed revoke.lua
var revokeLua string

//go:embed revokeall.lua
var revokeAllLua string

var (
	revokeScript    = newScript(sessionLua, indexLua, announceLua, revokeLua)
	revokeAllScript = newScript(announceLua, revokeAllLua)
)

// Revoke deletes a session and then publishes that on RevokedChannel. It returns
// ErrNotFound if the session does not exist.
//
// If Redis refuses only the PUBLISH (its ACL does not allow the channel), the session is
// deleted and the error is redisx.ErrUnavailable. Nodes then notice at their next re-check
// (Expiries).
func (s *Store) Revoke(ctx context.Context, handle string) error {
	if !ValidHandle(handle) {
		return fmt.Errorf("revoke session: %w", ErrNotFound)
	}
	_, err := s.run(ctx, revokeScript, []string{sessionKey(handle)}, handle, RevokedChannel)
	if err != nil {
		return fmt.Errorf("revoke session: %w", err)
	}
	return nil
}

// RevokeAll deletes all sessions of a user and publishes that, as Revoke does for one. It
// returns how many it deleted; zero is not an error. A session created at the same time
// is deleted as a whole, or created afterwards.
func (s *Store) RevokeAll(ctx context.Context, userID string) (int, error) {
	n, err := s.revokeAll(ctx, userID)
	if err != nil {
		return 0, fmt.Errorf("revoke all sessions: %w", err)
	}
	return n, nil
}

func (s *Store) revokeAll(ctx context.Context, userID string) (int, error) {
	if err := checkUser(userID); err != nil {
		return 0, err
	}
	v, err := s.run(ctx, revokeAllScript, []string{indexKey(userID)}, userID, RevokedChannel, maxRevoked)
	if err != nil {
		return 0, err
	}
	n, ok := v.(int64)
	if !ok {
		return 0, unexpected(v)
	}
	return int(n), nil
}
