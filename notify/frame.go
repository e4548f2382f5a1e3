package notify

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
)

// The frames of the wire protocol, as docs/protocol.md describes them. A
// notification's frame is built once, by the publisher's node and the publish
// script together, and travels as the same bytes through Redis, the log and
// every socket.

// A stored notification's frame is
//
//	{"type":"notification","id":I,"prev":P,"ts":T, + AppendTail
//
// The script supplies I, P and T, the publishing node the rest. The exact prefix
// distinguishes it from frames that other programs publish on the channel.
const (
	StoredHead    = `{"type":"notification","id":`
	StoredPrev    = `,"prev":`
	StoredTS      = `,"ts":`
	EphemeralHead = `{"type":"notification","ephemeral":true,"ts":`
)

// AppendTail appends what follows the timestamp in a notification's frame:
// kind, traceparent and the message byte for byte.
func AppendTail(dst []byte, d *Draft) []byte {
	if d.Kind != "" {
		dst = append(dst, `"kind":`...)
		dst = appendString(dst, d.Kind)
		dst = append(dst, ',')
	}
	if d.TraceParent != "" {
		dst = append(dst, `"traceparent":"`...)
		dst = append(dst, d.TraceParent...)
		dst = append(dst, `",`...)
	}
	dst = append(dst, `"message":`...)
	dst = append(dst, d.Message...)
	return append(dst, '}')
}

// AppendEphemeral appends the frame of a notification that is never stored.
// ts is in Unix milliseconds.
func AppendEphemeral(dst []byte, d *Draft, ts int64) []byte {
	dst = append(dst, EphemeralHead...)
	dst = strconv.AppendInt(dst, ts, 10)
	dst = append(dst, ',')
	return AppendTail(dst, d)
}

// ParseStored reads id and prev off a stored notification's frame, in the exact
// form the publish script writes. ok is false for any other text: it came from
// another program.
func ParseStored(frame string) (id, prev ID, ok bool) {
	rest, ok := cut(frame, StoredHead)
	if !ok || frame[len(frame)-1] != '}' {
		return 0, 0, false
	}
	if id, rest, ok = cutID(rest); !ok || id == 0 {
		return 0, 0, false
	}
	if rest, ok = cut(rest, StoredPrev); !ok {
		return 0, 0, false
	}
	if prev, rest, ok = cutID(rest); !ok || prev >= id {
		return 0, 0, false
	}
	if rest, ok = cut(rest, StoredTS); !ok {
		return 0, 0, false
	}
	_, rest, ok = cutID(rest)
	return id, prev, ok && rest[0] == ','
}

// IsEphemeral reports whether frame begins as AppendEphemeral writes it.
func IsEphemeral(frame string) bool {
	rest, ok := cut(frame, EphemeralHead)
	if !ok || frame[len(frame)-1] != '}' {
		return false
	}
	_, rest, ok = cutID(rest)
	return ok && rest[0] == ','
}

func cut(s, prefix string) (string, bool) {
	if len(s) <= len(prefix) || s[:len(prefix)] != prefix {
		return "", false
	}
	return s[len(prefix):], true
}

// cutID reads a run of digits and requires a further byte after it.
func cutID(s string) (ID, string, bool) {
	var n ID
	i := 0
	for ; i < len(s) && i < 17 && s[i] >= '0' && s[i] <= '9'; i++ {
		n = n*10 + ID(s[i]-'0')
	}
	return n, s[i:], i > 0 && i < len(s) && n <= MaxID
}

// Hello is the first frame of every connection.
type Hello struct {
	Type         string `json:"type"` // always "hello"
	UserID       string `json:"userId"`
	ConnectionID string `json:"connectionId"`
	Last         ID     `json:"last"`   // the user's newest id; where an idle client resumes from
	Read         ID     `json:"read"`   // read up to
	Unread       int    `json:"unread"` // stored, retained, unexpired, after Read
	Ping         int    `json:"ping"`   // seconds between the server's pings
}

// Frame returns h as JSON text.
func (h Hello) Frame() []byte {
	h.Type = "hello"
	b, _ := json.Marshal(h) // strings and integers: cannot fail
	return b
}

// GapFrame returns the frame that reports that the notifications between after and
// next, both excluded, were trimmed or lost. next 0: nothing retained follows.
func GapFrame(after, next ID) []byte {
	b := append([]byte(`{"type":"gap","after":`), strconv.FormatInt(int64(after), 10)...)
	b = append(b, `,"next":`...)
	return append(strconv.AppendInt(b, int64(next), 10), '}')
}

// ReadFrame returns the frame that reports to a user's devices how far one of them has
// read.
func ReadFrame(upTo ID, unread int) []byte {
	b := strconv.AppendInt([]byte(`{"type":"read","upTo":`), int64(upTo), 10)
	b = append(b, `,"unread":`...)
	return append(strconv.AppendInt(b, int64(unread), 10), '}')
}

// ByeFrame returns the frame that precedes a close frame. retryAfterMs 0 is left out.
func ByeFrame(code CloseCode, retryAfterMs int) []byte {
	b := strconv.AppendInt([]byte(`{"type":"bye","code":`), int64(code), 10)
	b = append(b, `,"reason":`...)
	b = appendString(b, code.Reason())
	if retryAfterMs > 0 {
		b = append(b, `,"retryAfterMs":`...)
		b = strconv.AppendInt(b, int64(retryAfterMs), 10)
	}
	return append(b, '}')
}

// PongFrame returns the answer to a client's ping frame.
func PongFrame() []byte { return []byte(`{"type":"pong"}`) }

// ErrorFrame returns the answer to a client's invalid frame.
func ErrorFrame(problem string) []byte {
	return append(appendString([]byte(`{"type":"error","error":`), problem), '}')
}

func appendString(dst []byte, s string) []byte {
	plain := true
	for i := 0; i < len(s) && plain; i++ {
		plain = s[i] >= ' ' && s[i] < 0x7f && s[i] != '"' && s[i] != '\\'
	}
	if plain {
		return append(append(append(dst, '"'), s...), '"')
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string cannot fail
	return append(dst, bytes.TrimSuffix(buf.Bytes(), []byte("\n"))...)
}

// ClientKind says which frame a client sent.
type ClientKind uint8

// The frames that clients may send.
const (
	ClientRead ClientKind = iota + 1
	ClientPing
	ClientToken
)

// ClientFrame is a validated frame from a client.
type ClientFrame struct {
	Kind  ClientKind
	UpTo  ID     // ClientRead: everything up to this id has been read
	Token string // ClientToken: a fresh JWT of the same user
}

// MaxClientFrame is the largest frame a client may send, in bytes.
const MaxClientFrame = 4096

// clientDepth is how deep a client's frame may nest.
const clientDepth = 4

// ParseClientFrame validates a client's frame. Its error text may be sent in an error
// frame. Unknown members are ignored.
func ParseClientFrame(data []byte) (ClientFrame, error) {
	var kind, token string
	var upTo ID
	var seen [3]bool
	err := members(data, clientDepth, func(name string, value []byte) (err error) {
		switch name {
		case "type":
			kind, err = decodeString(value)
			return once(&seen[0], name, err)
		case "token":
			token, err = decodeString(value)
			return once(&seen[1], name, err)
		case "upTo":
			upTo, err = ParseID(string(value))
			return once(&seen[2], name, err)
		}
		return nil
	})
	var fe *FieldError
	if err != nil && !errors.As(err, &fe) {
		return ClientFrame{}, errors.New("the frame " + err.Error())
	}
	if err != nil {
		return ClientFrame{}, err
	}
	switch {
	case kind == "ping":
		return ClientFrame{Kind: ClientPing}, nil
	case kind == "read" && seen[2]:
		return ClientFrame{Kind: ClientRead, UpTo: upTo}, nil
	case kind == "read":
		return ClientFrame{}, &FieldError{Field: "upTo", Problem: "is required"}
	case kind == "token" && token != "":
		return ClientFrame{Kind: ClientToken, Token: token}, nil
	case kind == "token":
		return ClientFrame{}, &FieldError{Field: "token", Problem: "is required"}
	}
	return ClientFrame{}, &FieldError{Field: "type", Problem: "must be read, ping or token"}
}

func once(seen *bool, name string, err error) error {
	if *seen {
		return repeatedField("", name)
	}
	*seen = true
	if err != nil {
		return asFieldError(name, err)
	}
	return nil
}
