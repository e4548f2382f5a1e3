package sessions

import "herald/internal/redisx"

// The Redis keys of this package. index.lua and other scripts build the same names where
// they have to compute a key.

// sessionKey: hash; userId, createdAt, lastUsedAt, absoluteExpiresAt (Unix
// ms) and one field data:<name> per data member with its JSON as sent, so that
// members are set and removed one by one. It expires (PEXPIREAT) at the sliding
// expiry, at the latest at absoluteExpiresAt.
func sessionKey(handle string) string { return "session:" + handle }

// indexKey: zset; the handles of a user's sessions, scored by the expiry of the session's
// key (Unix ms). It expires at its largest score, together with the last session. Each
// script that changes it prunes expired handles.
func indexKey(userID string) string { return redisx.UserKey(userID, "sessions") }
