package sessions

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
)

const (
	idBytes   = 32          // random bytes in an id
	hexLength = 2 * idBytes // characters in an id, and in a handle (SHA-256 is as long)
)

// newID never fails: crypto/rand crashes the process rather than return weak bytes.
func newID() string {
	var b [idBytes]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// Handle returns the public name of a session, which may be stored, logged and shown: the
// hex SHA-256 of the id's text. It does not check the id.
func Handle(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:])
}

// ValidID reports whether s has the form of a session id: 64 lower-case hex
// digits. Upper-case digits would give another handle and are refused.
func ValidID(s string) bool { return lowerHex(s) }

// ValidHandle reports whether s has the form of a handle. Ids have the same form, so the
// caller must not confuse a secret id with a handle.
func ValidHandle(s string) bool { return lowerHex(s) }

func lowerHex(s string) bool {
	if len(s) != hexLength {
		return false
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
