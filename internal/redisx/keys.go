package redisx

import (
	"fmt"
	"strings"
)

// UserKeys is the pattern of all keys that belong to one user each (SCAN MATCH).
const UserKeys = userKeyStart + "*" + userKeyEnd + "*"

const (
	userKeyStart = "user:{"
	userKeyEnd   = "}:"
)

// UserKey returns the name of one of a user's keys: user:{<id>}:<name>. The braces are a
// hash tag, so all keys of one user are in one slot of a Redis Cluster.
func UserKey(userID, name string) string { return userKeyStart + Escape(userID) + userKeyEnd + name }

// CutUserKey returns the escaped user id and the name in a key that UserKey made.
func CutUserKey(key string) (userID, name string, ok bool) {
	rest, ok := strings.CutPrefix(key, userKeyStart)
	if !ok {
		return "", "", false
	}
	return strings.Cut(rest, userKeyEnd)
}

// Escape percent-encodes every byte outside [A-Za-z0-9._@-], in upper case. No two
// texts have one escaped form, and none can change the meaning of a key, a channel
// pattern or a hash slot, as ':', '*' and '{' would.
func Escape(s string) string {
	clean := 0
	for clean < len(s) && Plain(s[clean]) {
		clean++
	}
	if clean == len(s) {
		return s
	}
	b := []byte(s[:clean])
	for _, c := range []byte(s[clean:]) {
		if Plain(c) {
			b = append(b, c)
		} else {
			b = fmt.Appendf(b, "%%%02X", c)
		}
	}
	return string(b)
}

// Plain reports whether Escape leaves a byte as it is.
func Plain(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return strings.IndexByte("._@-", c) >= 0
}
