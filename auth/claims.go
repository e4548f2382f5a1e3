package auth

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// maxNumericDate is the last second of the year 9999. A larger value comes from an
// issuer that counts milliseconds, or would overflow.
const maxNumericDate = 253402300799

var (
	errJSON      = refuse(ErrCredentials, "token is not valid JSON")
	errRepeated  = refuse(ErrCredentials, "token has a repeated member")
	errNoSubject = refuse(ErrCredentials, "token has no sub")
	errSubject   = refuse(ErrCredentials, "token's sub is not a user id")
	errNoExpiry  = refuse(ErrCredentials, "token has no exp")
	errExpiry    = refuse(ErrCredentials, "token's exp is not a date in seconds")
	errBadBefore = refuse(ErrCredentials, "token's nbf is not a date in seconds")
	errBadIssued = refuse(ErrCredentials, "token's iat is not a date in seconds")
)

// object maps the unescaped member names of a JSON object to their values. Names
// are case-sensitive: SUB is not sub (RFC 7519, section 10.1.1).
type object map[string]json.RawMessage

// readObject parses a JSON object and refuses duplicate names at the top level;
// no other level is read. RFC 7515 and RFC 7519 (section 4 of each) let a parser
// take the last duplicate, but then two parsers may see two users in one token.
func readObject(data []byte) (object, error) {
	var o object
	if !utf8.Valid(data) || json.Unmarshal(data, &o) != nil || o == nil {
		return nil, errJSON
	}
	if countMembers(data) != len(o) {
		return nil, errRepeated
	}
	return o, nil
}

// countMembers counts the top-level members of a valid JSON object by their
// colons outside strings.
func countMembers(data []byte) (n int) {
	depth, quoted := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			depth--
		case c == ':' && depth == 1:
			n++
		}
	}
	return n
}

// text returns the value of a string member. ok is false if the member is missing
// or is not a string.
func (o object) text(name string) (s string, ok bool) {
	raw := o[name]
	if len(raw) == 0 || raw[0] != '"' {
		return "", false
	}
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1]), true
	}
	return s, json.Unmarshal(raw, &s) == nil
}

// texts returns the values of a member that is a string or an array of strings
// (RFC 7519, section 4.1.3), and nil for anything else.
func (o object) texts(name string) []string {
	if s, ok := o.text(name); ok {
		return []string{s}
	}
	var raw []json.RawMessage
	if json.Unmarshal(o[name], &raw) != nil {
		return nil
	}
	all := make([]string, len(raw))
	for i, r := range raw {
		// Unmarshal turns null into "".
		if r[0] != '"' || json.Unmarshal(r, &all[i]) != nil {
			return nil
		}
	}
	return all
}

// date returns a NumericDate member (RFC 7519, section 2): a JSON number of
// seconds since 1970, which may have a fraction. A missing member is the zero
// time, with ok true.
func (o object) date(name string) (t time.Time, ok bool) {
	raw, present := o[name]
	if !present {
		return time.Time{}, true
	}
	seconds, err := strconv.ParseFloat(string(raw), 64)
	if err != nil || seconds < 0 || seconds > maxNumericDate {
		return time.Time{}, false
	}
	whole := int64(seconds)
	return time.Unix(whole, int64((seconds-float64(whole))*1e9)), true
}

// scopes returns the scopes of the scope claim, a space-separated list of names
// (RFC 8693, section 4.2). Unknown names grant nothing, and neither does a claim
// that is not a string.
func (o object) scopes() (all Scopes) {
	list, _ := o.text("scope")
	for name := range strings.SplitSeq(list, " ") {
		all |= scopeNamed(name)
	}
	return all
}
