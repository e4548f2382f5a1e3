package sessions

import (
	"errors"
	"strings"

	"herald/notify"
)

// RevokedChannel is where a revocation is published, after the deletion, for
// ParseRevocation to read. A node that was not listening then hears nothing of
// it later: Expiries is the remedy.
const RevokedChannel = "herald:revoked"

// maxRevoked is how many handles one message names at most, about 65 KB; RevokeAll
// publishes as many messages as it takes.
const maxRevoked = 1000

// Revocation says which sessions of a user are gone.
type Revocation struct {
	UserID  string
	Handles []string // at least one
}

var errRevocation = errors.New("not a revocation: want <user id> and 1 to 1000 handles, one space before each")

// ParseRevocation reads a message of RevokedChannel. Anyone with access to Redis
// may publish there, so it takes nothing but the exact form that Revoke and
// RevokeAll publish; of anything else it takes no part.
func ParseRevocation(payload string) (Revocation, error) {
	userID, rest, ok := strings.Cut(payload, " ")
	if !ok || !notify.ValidUserID(userID) || len(rest) > maxRevoked*(hexLength+1)-1 {
		return Revocation{}, errRevocation
	}
	handles := strings.Split(rest, " ")
	for _, h := range handles {
		if !ValidHandle(h) {
			return Revocation{}, errRevocation
		}
	}
	return Revocation{UserID: userID, Handles: handles}, nil
}
