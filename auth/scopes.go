package auth

import "strings"

// Scopes is a set of what a backend may do.
type Scopes uint8

// The scopes. ScopesAll is what an API key gets that names none.
const (
	ScopePublish  Scopes = 1 << iota // send notifications
	ScopeSessions                    // create, list, change and revoke sessions
	ScopePresence                    // ask who is online

	ScopesAll = ScopePublish | ScopeSessions | ScopePresence
)

// scopeNames holds the names on the wire and in settings, in the order they
// are printed.
var scopeNames = []struct {
	scope Scopes
	name  string
}{
	{ScopePublish, "publish"},
	{ScopeSessions, "sessions"},
	{ScopePresence, "presence"},
}

// String lists the scopes as RFC 6749, 3.3 writes them: separated by spaces.
func (s Scopes) String() string {
	var names []string
	for _, n := range scopeNames {
		if s&n.scope != 0 {
			names = append(names, n.name)
		}
	}
	return strings.Join(names, " ")
}

// scopeNamed returns the scope of that exact name, or 0.
func scopeNamed(name string) Scopes {
	for _, n := range scopeNames {
		if n.name == name {
			return n.scope
		}
	}
	return 0
}
