package auth

import "strings"

// splitList cuts a comma-separated setting into entries without the space
// around them. An empty text has no entries; an empty entry stays, for its
// reader to refuse.
func splitList(text string) []string {
	if strings.TrimSpace(text) == "" {
		return nil
	}
	entries := strings.Split(text, ",")
	for i := range entries {
		entries[i] = strings.TrimSpace(entries[i])
	}
	return entries
}

// only reports whether ok holds for every byte of s.
func only(s string, ok func(c byte) bool) bool {
	for i := 0; i < len(s); i++ {
		if !ok(s[i]) {
			return false
		}
	}
	return true
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isAlphanumeric(c byte) bool {
	return isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'z'
}

// visible reports whether s can be the token of an Authorization field: visible
// ASCII. That is more than RFC 6750's b64token, because operators choose their
// API keys; no comma, because that is how proxies join two fields into one.
func visible(s string) bool {
	return only(s, func(c byte) bool { return '!' <= c && c <= '~' && c != ',' })
}

// isTokenChar is tchar of RFC 9110, 5.6.2.
func isTokenChar(c byte) bool {
	return isAlphanumeric(c) || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// trimOWS removes optional white space as RFC 9110, 5.6.3 defines it. Other
// characters that Unicode calls space are part of the value, and make it bad.
func trimOWS(s string) string { return strings.Trim(s, " \t") }
