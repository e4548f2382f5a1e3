package notify

import (
	"encoding/json"
	"unicode/utf8"
)

// SessionRequest is the body of POST /sessions and PATCH /sessions/<handle>.
type SessionRequest struct {
	UserID string                     // "" if absent
	Data   map[string]json.RawMessage // nil if absent; values exactly as sent
}

// ParseSessionRequest parses the body of POST /sessions or PATCH
// /sessions/<handle>. It refuses unknown and repeated members. An error is a
// *FieldError. The result does not refer to body.
func ParseSessionRequest(body []byte) (SessionRequest, error) {
	var r SessionRequest
	if !utf8.Valid(body) {
		return r, &FieldError{Problem: errUTF8.Error()}
	}
	var seenUser bool
	err := members(body, MaxNesting+2, func(name string, value []byte) (err error) {
		switch name {
		case fieldUserID:
			if seenUser {
				return repeatedField("", name)
			}
			seenUser = true
			if r.UserID, err = parseUserID(value); err != nil {
				return asFieldError(name, err)
			}
			return nil
		case fieldData:
			if r.Data != nil {
				return repeatedField("", name)
			}
			r.Data, err = parseData(value)
			return err
		}
		return unknownField("", name, fieldUserID, fieldData)
	})
	if err != nil {
		return SessionRequest{}, asFieldError("", err)
	}
	return r, nil
}

const fieldData = "data"

func parseData(value []byte) (map[string]json.RawMessage, error) {
	data := make(map[string]json.RawMessage)
	err := members(value, MaxNesting+1, func(name string, v []byte) error {
		if _, twice := data[name]; twice {
			return repeatedField(fieldData, quoteName(name))
		}
		data[name] = append(json.RawMessage(nil), v...)
		return nil
	})
	if err != nil {
		return nil, asFieldError(fieldData, err)
	}
	return data, nil
}

// ParseReadRequest parses the body of POST /inbox/read, {"upTo":id}. upTo is
// required. An error is a *FieldError.
func ParseReadRequest(body []byte) (ID, error) {
	if !utf8.Valid(body) {
		return 0, &FieldError{Problem: errUTF8.Error()}
	}
	var upTo ID
	var seen bool
	err := members(body, clientDepth, func(name string, value []byte) (err error) {
		if name != "upTo" {
			return unknownField("", name, "upTo")
		}
		upTo, err = ParseID(string(value))
		return once(&seen, name, err)
	})
	if err == nil && !seen {
		err = &FieldError{Field: "upTo", Problem: "is required"}
	}
	if err != nil {
		return 0, asFieldError("", err)
	}
	return upTo, nil
}
