package sessions

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits on a session's data.
const (
	MaxMembers   = 128      // members of a session's data
	MaxDataBytes = 64 << 10 // sum of the names and JSON of all members, bytes
)

// pack checks a change of the data and encodes it in the format of members.lua. The
// change is a merge patch (RFC 7396) at the top level only: a null member is removed,
// any other replaces the old one.
//
// pack refuses a change that can't fit into any session. Only the script can tell
// whether the merged data fits. A change may remove a full session's data and set as
// much again.
func pack(data map[string]json.RawMessage) (string, error) {
	var b strings.Builder
	var set, removed weight
	for _, name := range slices.Sorted(maps.Keys(data)) {
		value := data[name]
		if err := checkMember(name, value); err != nil {
			return "", err
		}
		to := &set
		if isNull(value) {
			to, value = &removed, nil
		}
		if err := to.add(len(name) + len(value)); err != nil {
			return "", err
		}
		writeText(&b, name)
		writeText(&b, value)
	}
	return b.String(), nil
}

// weight is the number and size of some members.
type weight struct{ members, bytes int }

func (w *weight) add(bytes int) error {
	w.members++
	w.bytes += bytes
	if w.members > MaxMembers {
		return errMembers
	}
	if w.bytes > MaxDataBytes {
		return errBytes
	}
	return nil
}

var (
	errMembers = fmt.Errorf("%w: more than %d members", ErrData, MaxMembers)
	errBytes   = fmt.Errorf("%w: more than %d bytes", ErrData, MaxDataBytes)
)

// checkMember refuses values that are not valid JSON in UTF-8, and names with control
// characters, which would reach logs and terminals.
func checkMember(name string, value json.RawMessage) error {
	switch {
	case !utf8.ValidString(name):
		return badMember(name, "the name is not UTF-8")
	case strings.ContainsFunc(name, unicode.IsControl):
		return badMember(name, "the name has control characters")
	case !json.Valid(value):
		return badMember(name, "the value is not JSON")
	case !utf8.Valid(value):
		return badMember(name, "the value is not UTF-8")
	}
	return nil
}

// badMember quotes at most 64 bytes of the name.
func badMember(name, why string) error {
	const most = 64 // bytes of the name
	if len(name) > most {
		name = name[:most] + "…"
	}
	return fmt.Errorf("%w: member %q: %s", ErrData, name, why)
}

// isNull reports whether valid JSON is null, possibly surrounded by white space.
func isNull(value json.RawMessage) bool {
	return string(bytes.Trim(value, " \t\r\n")) == "null"
}

func writeText[T string | json.RawMessage](b *strings.Builder, text T) {
	b.WriteString(strconv.Itoa(len(text)))
	b.WriteByte(':')
	b.WriteString(string(text))
}
