package auth

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// maxNumericDate is the last second of the year 9999. Beyond it lie the dates
// of issuers that count milliseconds, and overflows.
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

// object is a JSON object by its members' names: unescaped, and compared
// exactly. SUB is not sub (RFC 7519, 10.1.1).
type object map[string]json.RawMessage

// readObject refuses repeated names, at the outermost level, which is the one
// that is read. RFC 7515, 4 and RFC 7519, 4 let a reader take the last one, but
// then two readers of one token may see two users.
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

// countMembers counts the members at the outermost level of a valid JSON object:
// each has one colon there that is not in a string.
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

// text returns a member that must be a string. ok is false if it is missing or
// something else.
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

// texts returns a member that is a string or an array of nothing but strings
// (RFC 7519, 4.1.3), nil if it is neither.
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

// date returns a NumericDate (RFC 7519, 2): seconds since 1970, possibly with a
// fraction, as a JSON number. The zero time stands for a missing one.
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

// scopes reads the scope claim of RFC 8693, 4.2: names separated by spaces.
// Names that mean something elsewhere are ignored, and so is a claim of another
// form: it grants nothing.
func (o object) scopes() (all Scopes) {
	list, _ := o.text("scope")
	for name := range strings.SplitSeq(list, " ") {
		all |= scopeNamed(name)
	}
	return all
}
