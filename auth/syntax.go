package auth

import "strings"

// splitList splits a comma-separated setting and trims space around each entry.
// An empty text has no entries. Empty entries are kept, so that the caller can
// refuse them.
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

// only reports whether ok is true for every byte of s.
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

// visible reports whether s is visible ASCII without comma, which a bearer token
// may consist of. RFC 6750 allows only b64token, but operators choose their API
// keys. A comma is refused because proxies join two fields into one with it.
func visible(s string) bool {
	return only(s, func(c byte) bool { return '!' <= c && c <= '~' && c != ',' })
}

// isTokenChar reports whether c is a tchar (RFC 9110, section 5.6.2).
func isTokenChar(c byte) bool {
	return isAlphanumeric(c) || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// trimOWS trims optional white space (RFC 9110, section 5.6.3): space and tab. It
// keeps other Unicode spaces, which make the value invalid.
func trimOWS(s string) string { return strings.Trim(s, " \t") }
