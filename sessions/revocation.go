package sessions

import (
	"errors"
	"strings"

	"herald/notify"
)

// RevokedChannel is the pub/sub channel of revocations, which are published after the
// deletion and parsed by ParseRevocation. A node that was not subscribed at that time must
// re-check its sessions with Expiries.
const RevokedChannel = "herald:revoked"

// maxRevoked limits the handles of one message, about 65 KB. RevokeAll publishes several
// messages if necessary.
const maxRevoked = 1000

// Revocation names deleted sessions of a user.
type Revocation struct {
	UserID  string
	Handles []string // at least one
}

var errRevocation = errors.New("not a revocation: want <user id> and 1 to 1000 handles, one space before each")

// ParseRevocation parses a message of RevokedChannel. Any client of Redis may publish
// there, so it accepts only the exact format of Revoke and RevokeAll.
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
