package broker

import (
	"strings"

	"herald/internal/redisx"
	"herald/notify"
)

// The Redis keys and channels of this package. {…} is a hash tag: one user's keys share a slot.

// logKey: stream; entries <id>-0 with f (the complete frame), n (sequence number within
// this user's log), x (Unix ms when its ttl ends, "0" without one). Lives for the retention
// after the last entry.
func logKey(userID string) string { return redisx.UserKey(userID, "log") }

// stateKey: hash; last (newest id), seq (notifications ever stored), read (read
// up to). Outlives the log by stateAfterLog.
func stateKey(userID string) string { return redisx.UserKey(userID, "state") }

// expiringKey: zset id → Unix ms, of the unread entries with a ttl: an
// exact unread count subtracts them. Lives as long as the log.
func expiringKey(userID string) string { return redisx.UserKey(userID, "expiring") }

// channel: where a user's frames are published.
func channel(userID string) string { return channelPrefix + userID + channelSuffix }

// idempotencyKey: hash; print (fingerprint of the request), answer (the script's reply
// without its verdict). Lives for IdempotencyTTL.
func idempotencyKey(client, keyHash string) string { return "idempotency:" + client + ":" + keyHash }

const (
	channelPrefix  = "user:"
	channelSuffix  = ":events"
	channelPattern = channelPrefix + "*" + channelSuffix
	// readChannel carries "<user> <read frame>" when a read position moves.
	readChannel = "herald:read"
	// canaryMark begins a canary's name, in place of a user id. No user id contains it. So
	// each node hears its canary through the same pattern as notifications.
	canaryMark = "!"
)

// cutChannel returns the user id, or the canary's name, in a channel that channelPattern
// matched.
func cutChannel(ch string) (string, bool) {
	id, ok := strings.CutPrefix(ch, channelPrefix)
	if !ok {
		return "", false
	}
	id, ok = strings.CutSuffix(id, channelSuffix)
	return id, ok && (notify.ValidUserID(id) || strings.HasPrefix(id, canaryMark))
}
