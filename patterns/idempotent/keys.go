package idempotent

import (
	"crypto/sha256"
	"encoding/hex"
)

// recordKey: hash; print (fingerprint of the request), token (of the newest
// attempt), until (Unix ms when its lease ends), result (once there is one).
// The broker's keys have the same form, where the namespace is a client: a key
// that was used for a publish is refused for anything else, and the other way round.
// Effects that are guarded in the same Redis keep fields of their own in it
// (Attempt.Key). Lives for Options.Keep after it was last claimed, extended or
// recorded.
func recordKey(namespace, key string) string {
	h := sha256.Sum256([]byte(key))
	return "idempotency:" + namespace + ":" + hex.EncodeToString(h[:])
}
