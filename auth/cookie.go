package auth

import "strings"

// maxCookieBytes is what browsers allow for a cookie (RFC 6265bis, 5.6).
const maxCookieBytes = 4096

var (
	errTwoCookies = refuse(ErrCredentials, "two different session cookies")
	errCookie     = refuse(ErrCredentials, "malformed session cookie")
)

// ValidCookieName reports whether a cookie can have that name (RFC 6265, 4.1.1).
func ValidCookieName(name string) bool {
	return name != "" && only(name, isTokenChar)
}

// CookieValue finds the cookie of exactly that name, case included, in a
// request's Cookie fields (RFC 6265, 4.2.1; quotes around the value removed).
// Pairs of other names may be anything.
//
// Two cookies of the name with different values are ErrCredentials: the field
// does not say which site set which, so a hostile subdomain could plant its own
// session beside the user's, and which one wins would depend on path lengths.
func CookieValue(headerValues []string, name string) (value string, present bool, err error) {
	for _, header := range headerValues {
		for pair := range strings.SplitSeq(header, ";") {
			v, ok := strings.CutPrefix(trimOWS(pair), name)
			if !ok || v == "" || v[0] != '=' {
				continue
			}
			v = unquote(v[1:])
			if present && v != value {
				return "", true, errTwoCookies
			}
			value, present = v, true
		}
	}
	if len(value) > maxCookieBytes || !only(value, isCookieOctet) {
		return "", true, errCookie
	}
	return value, present, nil
}

func unquote(s string) string {
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		return s[1 : len(s)-1]
	}
	return s
}

// isCookieOctet is cookie-octet of RFC 6265, 4.1.1.
func isCookieOctet(c byte) bool {
	return '!' <= c && c <= '~' && c != '"' && c != ',' && c != ';' && c != '\\'
}
