package foreign

import (
	"encoding/json"

	"herald/notify"
)

// userAt is the user's id in a session: at the path, through objects only, a
// string or an integer, and one that can be a user id here. Of a name that is
// there twice the last counts, as it does for JSON.parse.
func userAt(value []byte, path []string) (userID string, ok bool) {
	for _, name := range path {
		var members map[string]json.RawMessage
		if json.Unmarshal(value, &members) != nil {
			return "", false
		}
		value = members[name] // nil is no JSON
	}
	if json.Unmarshal(value, &userID) != nil {
		userID = string(value)
		if !integer(userID) {
			return "", false
		}
	}
	return userID, notify.ValidUserID(userID)
}

// integer reports whether a JSON text is a whole number without a sign, fraction
// or exponent, so that its digits are what any program would call it.
func integer(text string) bool {
	for i := 0; i < len(text); i++ {
		if text[i] < '0' || text[i] > '9' {
			return false
		}
	}
	return text != ""
}
