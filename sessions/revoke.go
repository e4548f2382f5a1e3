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

// Revoke ends a session for good and announces it on RevokedChannel, in that
// order; ErrNotFound if there was none.
//
// If Redis refuses the announcement alone (its ACL does not allow the channel),
// the session is gone and the error is redisx.ErrUnavailable; nodes then find out by
// their own re-check (Expiries).
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

// RevokeAll ends all sessions of a user, as Revoke does one, and returns how
// many live ones there were; none is not an error. A session created at the
// same time is ended or not created yet, never half of it.
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
