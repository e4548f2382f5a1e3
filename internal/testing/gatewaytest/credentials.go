package gatewaytest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"time"
)

// The keys that Settings configures.
const (
	Key       = "0123456789abcdef-backend"         // secret of the API key "backend", every scope
	JWTKeyID  = "k1"                               // kid of the only key for tokens
	JWTSecret = "0123456789abcdef0123456789abcdef" // its secret
	BearerKey = "Authorization: Bearer " + Key     // the header line of a backend
)

// Settings returns the environment of a node on that Redis: the keys above, no limits, and
// further KEY=VALUE settings, which override.
func Settings(redisURL string, more ...string) []string {
	return append([]string{
		"REDIS_URL=" + redisURL,
		"HERALD_API_KEYS=backend:" + Key,
		"HERALD_JWT_KEYS=" + JWTKeyID + "=HS256:" + JWTSecret,
		"HERALD_CONNECT_LIMIT=off",
		"HERALD_PUBLISH_LIMIT=off",
	}, more...)
}

// Claims are a token's payload.
type Claims map[string]any

// UserToken returns a token of the user that is valid for an hour.
func UserToken(userID string) string {
	return Token(Claims{"sub": userID, "exp": time.Now().Add(time.Hour).Unix()})
}

// Token signs claims with the key of Settings.
func Token(c Claims) string { return SignToken(Claims{"alg": "HS256", "kid": JWTKeyID}, c, JWTSecret) }

// SignToken returns a compact JWS (RFC 7515, 7.1) signed with HMAC SHA-256, also if its
// header names another algorithm.
func SignToken(header, claims Claims, secret string) string {
	text := segment(header) + "." + segment(claims)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(text))
	return text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func segment(c Claims) string {
	b, err := json.Marshal(c)
	if err != nil {
		panic(err) // a test's own mistake
	}
	return base64.RawURLEncoding.EncodeToString(b)
}
