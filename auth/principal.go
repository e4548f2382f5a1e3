// Package auth authenticates requests: it turns API keys, JWTs and session cookies
// into a Principal, or an error whose Detail may be sent to the client. It also
// decides from which Origins a request with a cookie is accepted.
//
// It parses HTTP header fields but imports no HTTP library, and looks sessions up
// through functions that the caller supplies. Neither its errors nor its values ever
// print a secret or a token.
package auth

import "time"

// Method is the kind of credential that a principal was authenticated by.
type Method string

// The methods.
const (
	MethodSession Method = "session" // a session cookie
	MethodJWT     Method = "jwt"     // a JSON Web Token, in any place of the request
	MethodAPIKey  Method = "apikey"  // a configured API key
)

// Principal is an authenticated user or backend.
type Principal struct {
	UserID        string // the user it acts for; empty for API keys
	Name          string // what is logged and rate-limited: the API key's name, else the user id
	Method        Method
	Scopes        Scopes    // what it may do besides being UserID; none for sessions
	SessionHandle string    // the session's handle, never its secret id; empty for the other methods
	Expires       time.Time // when the credential expires; zero: never
}

// Has reports whether the principal was granted all of s. It is false if s is empty.
func (p Principal) Has(s Scopes) bool {
	return s != 0 && p.Scopes&s == s
}
