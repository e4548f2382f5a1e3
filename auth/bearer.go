package auth

import "strings"

var (
	errTwoAuthorizations = refuse(ErrCredentials, "several Authorization headers")
	errAuthorization     = refuse(ErrCredentials, "malformed Authorization header")
	errTwoTokens         = refuse(ErrCredentials, "several token parameters")
)

// ParseBearer returns the bearer token of a request's Authorization fields (RFC
// 6750, section 2.1). The scheme is case-insensitive (RFC 9110, section 11.1).
// With another scheme present is false and err is nil, because a reverse proxy
// may use Basic for itself. ParseBearer returns ErrCredentials for several
// fields, a malformed scheme, and a Bearer scheme without exactly one token.
func ParseBearer(values []string) (token string, present bool, err error) {
	switch {
	case len(values) == 0:
		return "", false, nil
	case len(values) > 1:
		return "", true, errTwoAuthorizations
	}
	scheme, rest, _ := strings.Cut(trimOWS(values[0]), " ")
	if scheme == "" || !only(scheme, isTokenChar) {
		return "", true, errAuthorization
	}
	if !strings.EqualFold(scheme, "Bearer") {
		return "", false, nil
	}
	token = strings.TrimLeft(rest, " ")
	if token == "" || !visible(token) {
		return "", true, errAuthorization
	}
	return token, true, nil
}

// QueryToken returns the token from the unescaped values of the query parameter
// "token". An empty value counts as present, and Authenticate refuses it.
// QueryToken returns ErrCredentials for several values.
func QueryToken(values []string) (token string, present bool, err error) {
	switch len(values) {
	case 0:
		return "", false, nil
	case 1:
		return values[0], true, nil
	}
	return "", true, errTwoTokens
}
