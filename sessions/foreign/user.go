package foreign

import (
	"encoding/json"

	"herald/notify"
)

// userAt returns the user's id in a session: a string or an integer at the path, through
// objects only, that is a valid user id. Of a repeated name the last counts, as in
// JSON.parse.
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

// integer reports whether a JSON text is an integer without sign, fraction or exponent,
// whose digits are the same for every program.
func integer(text string) bool {
	for i := 0; i < len(text); i++ {
		if text[i] < '0' || text[i] > '9' {
			return false
		}
	}
	return text != ""
}
