package auth

import "strings"

var (
	errTwoAuthorizations = refuse(ErrCredentials, "several Authorization headers")
	errAuthorization     = refuse(ErrCredentials, "malformed Authorization header")
	errTwoTokens         = refuse(ErrCredentials, "several token parameters")
)

// ParseBearer reads the token out of a request's Authorization fields
// (RFC 6750, 2.1). The scheme's case does not matter (RFC 9110, 11.1). Another
// scheme, such as the Basic of a proxy in front, is not present rather than an
// error: it says nothing to this gateway. Several fields, and a Bearer without
// exactly one token, are ErrCredentials.
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

// QueryToken takes the token out of the values of the query's token parameter,
// already unescaped. An empty one is present, and bad.
func QueryToken(values []string) (token string, present bool, err error) {
	switch len(values) {
	case 0:
		return "", false, nil
	case 1:
		return values[0], true, nil
	}
	return "", true, errTwoTokens
}
