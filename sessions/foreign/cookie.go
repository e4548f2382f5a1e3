package foreign

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/url"
	"strings"
)

// sessionID returns the session's id in a cookie value, percent-encoded or not.
func (s *Store) sessionID(cookie string) (id string, ok bool) {
	id = cookie
	if s.format == Express {
		if id, ok = s.unsign(cookie); !ok {
			return "", false
		}
	}
	return id, validID(id)
}

// unsign verifies the cookie as express-session does, and returns the part before the
// signature. It tries every secret, so that timing does not reveal which one signed.
func (s *Store) unsign(cookie string) (id string, ok bool) {
	if decoded, err := url.PathUnescape(cookie); err == nil {
		cookie = decoded
	}
	signed, ok := strings.CutPrefix(cookie, "s:")
	dot := strings.LastIndexByte(signed, '.')
	if !ok || dot < 0 {
		return "", false
	}
	id, signature := signed[:dot], []byte(signed[dot+1:])
	valid := false
	for _, key := range s.keys {
		if hmac.Equal(signature, sign(id, key)) {
			valid = true
		}
	}
	return id, valid
}

func sign(id string, key []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id))
	return base64.RawStdEncoding.AppendEncode(nil, mac.Sum(nil))
}

func validID(id string) bool {
	if len(id) < MinIDBytes || len(id) > MaxIDBytes {
		return false
	}
	for i := 0; i < len(id); i++ {
		c := id[i]
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && c != '_' && c != '-' {
			return false
		}
	}
	return true
}
