package broker

import (
	"strings"

	"herald/internal/redisx"
	"herald/notify"
)

// The Redis names of this room. {…} is a hash tag: one user's keys share a slot.

// logKey: stream; entries <id>-0 with f (the finished frame), n (the user's
// count of stored notifications, this one included), x (Unix ms when its ttl is
// over, "0" without one). Lives for the retention after the last entry.
func logKey(userID string) string { return redisx.UserKey(userID, "log") }

// stateKey: hash; last (newest id), seq (notifications ever stored), read (read
// up to). Outlives the log by stateAfterLog.
func stateKey(userID string) string { return redisx.UserKey(userID, "state") }

// expiringKey: zset id → Unix ms, of the unread entries with a ttl: what an
// exact unread count subtracts. Lives as long as the log.
func expiringKey(userID string) string { return redisx.UserKey(userID, "expiring") }

// channel: where a user's frames are published.
func channel(userID string) string { return channelPrefix + userID + channelSuffix }

// idempotencyKey: hash; print (SHA-256 of the request), answer (what the script
// returned). Lives for IdempotencyTTL.
func idempotencyKey(client, keyHash string) string { return "idempotency:" + client + ":" + keyHash }

const (
	channelPrefix  = "user:"
	channelSuffix  = ":events"
	channelPattern = channelPrefix + "*" + channelSuffix
	// readChannel carries "<user> <read frame>" when a user has read.
	readChannel = "herald:read"
	// canaryMark stands where a user id would, and is none: each node's canary
	// is heard through the very pattern that it watches over.
	canaryMark = "!"
)

// cutChannel returns the user id, or canary name, in a channel that the
// pattern matched.
func cutChannel(ch string) (string, bool) {
	id, ok := strings.CutPrefix(ch, channelPrefix)
	if !ok {
		return "", false
	}
	id, ok = strings.CutSuffix(id, channelSuffix)
	return id, ok && (notify.ValidUserID(id) || strings.HasPrefix(id, canaryMark))
}
