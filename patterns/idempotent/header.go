package idempotent

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
)

// MaxKeyBytes is the maximum length of a key in an Idempotency-Key header.
const MaxKeyBytes = 255

// ParseKey parses the value of an Idempotency-Key header
// (draft-ietf-httpapi-idempotency-key-header): a string item of RFC 8941, 1 to 255
// bytes without control characters. The quotes are optional.
func ParseKey(v string) (string, error) {
	if len(v) >= 2 && v[0] == '"' && v[len(v)-1] == '"' {
		v = v[1 : len(v)-1]
	}
	if v == "" || len(v) > MaxKeyBytes {
		return "", errors.New("must be 1 to 255 bytes long")
	}
	if strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", errors.New("must not hold control characters")
	}
	return v, nil
}

// Fingerprint returns the hex SHA-256 of a request's path and body. A key is bound to the
// fingerprint of its first request.
func Fingerprint(path string, body []byte) string {
	h := sha256.New()
	h.Write([]byte(path))
	h.Write([]byte{0})
	h.Write(body)
	return hex.EncodeToString(h.Sum(nil))
}
