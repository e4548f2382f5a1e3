package schedule

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"herald/notify"
)

// Entry is one scheduled notification.
type Entry struct {
	// ID is "<due, Unix ms>-<accepted, Unix µs and 3 digits>-<user id>". It locates the
	// entry, and the ids of a user sort in the order of delivery.
	ID    string
	At    time.Time // when it is due
	Draft notify.Draft
}

var idForm = regexp.MustCompile(`^(\d{13})-\d{19}-(.*)$`)

// ParseID returns the due time and the user of an id. ok is false if the text is not an
// id.
func ParseID(id string) (at time.Time, userID string, ok bool) {
	m := idForm.FindStringSubmatch(id)
	if m == nil || !notify.ValidUserID(m[2]) {
		return time.Time{}, "", false
	}
	ms, err := strconv.ParseInt(m[1], 10, 64)
	return time.UnixMilli(ms).UTC(), m[2], err == nil
}

// header holds the fields of a draft except its message. Members may be added: older
// nodes ignore them.
type header struct {
	Kind        string `json:"kind,omitempty"`
	TTL         int64  `json:"ttl,omitempty"` // ms
	Ephemeral   bool   `json:"ephemeral,omitempty"`
	TraceParent string `json:"traceparent,omitempty"`

	Urgency notify.Urgency `json:"urgency,omitempty"`
}

// appendPacked appends a draft as an entry of userKey: a line of JSON, then the
// message byte for byte. A pending entry (AddPending) has a prefix: "?<bytes of its
// commit key> <bytes of its request's record>\n", then the two keys.
func appendPacked(dst []byte, d *notify.Draft) []byte {
	h, _ := json.Marshal(header{d.Kind, d.TTL.Milliseconds(), d.Ephemeral, d.TraceParent, d.Urgency}) // never fails
	dst = append(append(dst, h...), '\n')
	return append(dst, d.Message...)
}

var errEntry = errors.New("schedule: not an entry")

func unpack(id, packed string) (Entry, error) {
	at, userID, ok := ParseID(id)
	if strings.HasPrefix(packed, "?") {
		head, rest, _ := strings.Cut(packed, "\n")
		var commit, record int
		if n, _ := fmt.Sscanf(head, "?%d %d", &commit, &record); n != 2 || commit+record > len(rest) {
			return Entry{}, errEntry
		}
		packed = rest[commit+record:]
	}
	line, message, ok2 := bytes.Cut([]byte(packed), []byte{'\n'})
	var h header
	if !ok || !ok2 || json.Unmarshal(line, &h) != nil {
		return Entry{}, errEntry
	}
	return Entry{ID: id, At: at, Draft: notify.Draft{
		UserID: userID, Message: message, Kind: h.Kind, TTL: time.Duration(h.TTL) * time.Millisecond,
		Ephemeral: h.Ephemeral, TraceParent: h.TraceParent, Urgency: h.Urgency,
	}}, nil
}
