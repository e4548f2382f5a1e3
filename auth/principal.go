// Package auth answers one question: who is asking. API keys, JWTs and session
// cookies all become a Principal, or an error whose Detail may be shown to
// whoever sent the request. It also decides which Origins may ask with a cookie.
//
// It speaks the syntax of HTTP's header fields but knows no HTTP library, and
// looks sessions up through functions it is given. Neither its errors nor its
// values ever print a secret or a token.
package auth

import "time"

// Method is how a principal proved who it is.
type Method string

// The methods.
const (
	MethodSession Method = "session" // a session cookie
	MethodJWT     Method = "jwt"     // a JSON Web Token, wherever it stood
	MethodAPIKey  Method = "apikey"  // a configured API key
)

// Principal is who asks, proven.
type Principal struct {
	UserID        string // whom it acts for; empty for API keys
	Name          string // what is logged and rate-limited: the API key's name, else the user id
	Method        Method
	Scopes        Scopes    // what it may do besides being UserID; none for sessions
	SessionHandle string    // the session's handle, never its secret id; empty for the other methods
	Expires       time.Time // when the credential's life ends; zero: never
}

// Has reports whether the principal was granted all of s, and s asks for
// something.
func (p Principal) Has(s Scopes) bool {
	return s != 0 && p.Scopes&s == s
}
