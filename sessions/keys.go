package sessions

import "herald/internal/redisx"

// The keys of this package. session.lua and index.lua spell the same names for
// those that a script has to compute.

// sessionKey is a hash: userId, createdAt, lastUsedAt, absoluteExpiresAt (Unix
// ms) and one field data:<name> per data member with its JSON as sent, so that
// members are set and removed one by one. It expires (PEXPIREAT) at the sliding
// expiry, at the latest at absoluteExpiresAt.
func sessionKey(handle string) string { return "session:" + handle }

// indexKey is a zset: the handles of a user's sessions, score = the expiry of
// the session's key (Unix ms). It expires at its largest score: never before a
// live session, never after the last one. Dead handles in it are pruned
// whenever it is touched.
func indexKey(userID string) string { return redisx.UserKey(userID, "sessions") }
