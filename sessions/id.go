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

// newID cannot fail: crypto/rand ends the process rather than return weak bytes.
func newID() string {
	var b [idBytes]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// Handle is the name under which a session may be stored, logged and shown: the
// hex SHA-256 of the id's text. It does not check the id.
func Handle(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:])
}

// ValidID reports whether s has the form of a session id: 64 lower-case hex
// digits. Another spelling of the same number is another text with another
// handle, and is refused.
func ValidID(s string) bool { return lowerHex(s) }

// ValidHandle reports whether s has the form of a handle. Ids and handles look
// alike; nothing but the caller's care tells a secret from a name.
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
