// Package notify defines the vocabulary that the gateway's packages share: user ids,
// notification ids, drafts, frames and close codes. It imports the standard library
// only and uses neither the network nor a clock.
package notify

import (
	"errors"
	"strconv"
	"strings"
)

// ID orders the notifications of one user: strictly increasing, never reused,
// max(previous+1, Redis TIME in milliseconds). It fits the 53 bits that a
// JavaScript number carries exactly. Zero means "none".
type ID int64

// MaxID is the largest ID that JSON numbers carry exactly in every client (2^53).
const MaxID ID = 1 << 53

// Limits on what a publisher may send.
const (
	MaxUserIDBytes  = 128         // bytes in a user id
	MaxKindBytes    = 128         // bytes in a notification's type
	MaxMessageBytes = 64 << 10    // bytes in one message, as sent
	MaxNesting      = 32          // levels of arrays and objects in one message
	MaxRecipients   = 1000        // users in one request, notifications in one batch
	MaxTTLSeconds   = 366 * 86400 // seconds; the log's retention ends most notifications sooner
)

// Frame is one finished server frame, as it is sent to a user's sockets.
type Frame struct {
	Event string // the frame's type, which SSE repeats outside the frame
	ID    ID     // 0: not stored
	Prev  ID     // the stored notification before it; 0 for a user's first
	JSON  string // the frame's JSON text, without transport framing; "" for an expired entry of the log
}

// ErrUserID reports that a user id is not 1–128 bytes of [A-Za-z0-9._@-]. Any other
// byte could change the meaning of a Redis key, a channel pattern or a hash slot.
var ErrUserID = errors.New("must be 1 to 128 characters of A-Z a-z 0-9 . _ @ -")

// ErrID reports that a text is not a notification id.
var ErrID = errors.New("must be an integer from 0 to 9007199254740992")

// ValidUserID reports whether s may name a user. Each user id is checked with it
// before it becomes part of a key or channel.
func ValidUserID(s string) bool {
	if len(s) == 0 || len(s) > MaxUserIDBytes {
		return false
	}
	for i := 0; i < len(s); i++ {
		if !userIDByte[s[i]] {
			return false
		}
	}
	return true
}

var userIDByte = func() (t [256]bool) {
	const allowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._@-"
	for _, b := range []byte(allowed) {
		t[b] = true
	}
	return t
}()

// ParseID reads a decimal notification id: digits only, no sign, no leading
// zero, at most MaxID.
func ParseID(s string) (ID, error) {
	if len(s) == 0 || len(s) > 16 || (len(s) > 1 && s[0] == '0') || strings.Trim(s, "0123456789") != "" {
		return 0, ErrID
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || ID(n) > MaxID {
		return 0, ErrID
	}
	return ID(n), nil
}

// CloseCode is a WebSocket close code (RFC 6455, 7.4). The gateway's own follow
// Pusher's ranges: 40xx tells the client to stay away, 41xx to come back after
// the time in the bye frame, or at least a second.
type CloseCode int

// The close codes that the gateway sends.
const (
	CloseNormal       CloseCode = 1000 // the client said goodbye
	CloseProtocol     CloseCode = 1002 // not WebSocket (RFC 6455)
	CloseUnsupported  CloseCode = 1003 // a binary message
	CloseNotUTF8      CloseCode = 1007 // a text message that is not UTF-8
	CloseTooBig       CloseCode = 1009 // a message over 4 KiB
	CloseExpired      CloseCode = 4001 // the credentials have expired
	CloseRevoked      CloseCode = 4002 // logged out
	CloseMisuse       CloseCode = 4003 // too many invalid frames, or too many bytes
	CloseTooManyConns CloseCode = 4004 // this user has too many connections
	CloseDraining     CloseCode = 4101 // this node is shutting down
	CloseTooSlow      CloseCode = 4102 // the socket's queue is full; resume with since
	CloseOverloaded   CloseCode = 4103 // this node cannot serve the connection now
)

// Reason returns the short text sent with the close code; "" for an unknown code.
func (c CloseCode) Reason() string {
	switch c {
	case CloseNormal:
		return "goodbye"
	case CloseProtocol:
		return "protocol error"
	case CloseUnsupported:
		return "binary messages are not supported"
	case CloseNotUTF8:
		return "text is not UTF-8"
	case CloseTooBig:
		return "message over 4096 bytes"
	case CloseExpired:
		return "credentials expired"
	case CloseRevoked:
		return "session revoked"
	case CloseMisuse:
		return "protocol misuse"
	case CloseTooManyConns:
		return "too many connections for this user"
	case CloseDraining:
		return "draining"
	case CloseTooSlow:
		return "too slow, resume"
	case CloseOverloaded:
		return "overloaded"
	}
	return ""
}
