package auth

import "strings"

// maxCookieBytes is the size limit of a cookie in browsers (RFC 6265bis, section 5.6).
const maxCookieBytes = 4096

var (
	errTwoCookies = refuse(ErrCredentials, "two different session cookies")
	errCookie     = refuse(ErrCredentials, "malformed session cookie")
)

// ValidCookieName reports whether name is a valid cookie name (RFC 6265, section 4.1.1).
func ValidCookieName(name string) bool {
	return name != "" && only(name, isTokenChar)
}

// CookieValue returns the value of the named cookie in a request's Cookie fields
// (RFC 6265, section 4.2.1). The name is case-sensitive. Quotes around the value
// are removed. Cookies of other names may be malformed.
//
// CookieValue returns ErrCredentials if the value is longer than 4096 bytes or
// malformed, or if two cookies of the name have different values. The Cookie
// field does not say which site set a cookie, so a hostile subdomain could add its
// session to the user's. Path lengths would then decide which of the two counts.
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

// isCookieOctet reports whether c is a cookie-octet (RFC 6265, section 4.1.1).
func isCookieOctet(c byte) bool {
	return '!' <= c && c <= '~' && c != '"' && c != ',' && c != ';' && c != '\\'
}
