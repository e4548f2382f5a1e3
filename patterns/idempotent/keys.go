package idempotent

import (
	"crypto/sha256"
	"encoding/hex"
)

// recordKey: hash; print (fingerprint of the request), token (of the newest attempt),
// until (end of its lease, Unix ms), result (once there is one). Lives for Options.Keep
// after the last claim, extension or record.
//
// The broker's idempotency keys have the same format, with the client as namespace. So a
// key used for a publish is refused for any other request, and the other way round.
// Effects guarded in the same Redis server keep more fields in it (Attempt.Key).
func recordKey(namespace, key string) string {
	h := sha256.Sum256([]byte(key))
	return "idempotency:" + namespace + ":" + hex.EncodeToString(h[:])
}
