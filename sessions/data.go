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
	MaxDataBytes = 64 << 10 // bytes of all members' names and JSON together
)

// pack checks a change of the data and puts it into the form that members.lua
// reads. The change is a merge patch (RFC 7396) at the top level only: a member
// that is null is removed, any other replaces what was there, whole.
//
// It refuses what cannot fit into any session; whether the merged data fits is
// known only to the script. A change may remove as much as a full session holds
// and set as much again.
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

// weight is how much of the limits some members use up.
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

// checkMember refuses what could not be given back as JSON, and names with
// control characters, which would end up in logs and on terminals.
func checkMember(name string, value json.RawMessage) error {
	switch {
	case !utf8.ValidString(name):
		return badMember(name, "its name is not UTF-8")
	case strings.ContainsFunc(name, unicode.IsControl):
		return badMember(name, "its name has control characters")
	case !json.Valid(value):
		return badMember(name, "it is not JSON")
	case !utf8.Valid(value):
		return badMember(name, "it is not UTF-8")
	}
	return nil
}

// badMember quotes the name, and no more of it than fits on a line.
func badMember(name, why string) error {
	const most = 64 // bytes of the name
	if len(name) > most {
		name = name[:most] + "…"
	}
	return fmt.Errorf("%w: member %q: %s", ErrData, name, why)
}

// isNull reports whether valid JSON is null, as sent: white space may be around it.
func isNull(value json.RawMessage) bool {
	return string(bytes.Trim(value, " \t\r\n")) == "null"
}

func writeText[T string | json.RawMessage](b *strings.Builder, text T) {
	b.WriteString(strconv.Itoa(len(text)))
	b.WriteByte(':')
	b.WriteString(string(text))
}
