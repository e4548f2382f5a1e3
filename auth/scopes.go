package auth

import "strings"

// Scopes is a set of permissions of a backend.
type Scopes uint8

// The scopes. An API key without a scope list has ScopesAll.
const (
	ScopePublish  Scopes = 1 << iota // send notifications
	ScopeSessions                    // create, list, change and revoke sessions
	ScopePresence                    // ask who is online

	ScopesAll = ScopePublish | ScopeSessions | ScopePresence
)

// scopeNames maps scopes to their names in tokens and settings, in the order in
// which String prints them.
var scopeNames = []struct {
	scope Scopes
	name  string
}{
	{ScopePublish, "publish"},
	{ScopeSessions, "sessions"},
	{ScopePresence, "presence"},
}

// String returns the names of the scopes, separated by spaces (RFC 6749, section 3.3).
func (s Scopes) String() string {
	var names []string
	for _, n := range scopeNames {
		if s&n.scope != 0 {
			names = append(names, n.name)
		}
	}
	return strings.Join(names, " ")
}

// scopeNamed returns the scope with the given name, or 0. Names are case-sensitive.
func scopeNamed(name string) Scopes {
	for _, n := range scopeNames {
		if n.name == name {
			return n.scope
		}
	}
	return 0
}
