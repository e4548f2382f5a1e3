package notify

import (
	"errors"
	"fmt"
	"regexp"
	"time"
)

// MaxAheadSeconds is how far ahead a notification may be scheduled.
const MaxAheadSeconds = 366 * 86400

// When is a notification's delivery time: at once if it is zero, otherwise at a time
// or after a delay.
type When struct {
	At    time.Time     // whole milliseconds; zero: not given
	Delay time.Duration // from its acceptance, whole seconds; 0: not given
}

// Scheduled reports whether it is to be delivered later.
func (w When) Scheduled() bool { return w != When{} }

// set reads deliverAt or delay.
func (w *When) set(name string, value []byte) (err error) {
	if name == fieldDelay {
		w.Delay, err = parseSeconds(value, MaxAheadSeconds)
	} else {
		w.At, err = parseTime(value)
	}
	return err
}

// complete refuses two times for one notification.
func (w When) complete(at string) error {
	if !w.At.IsZero() && w.Delay != 0 {
		return &FieldError{Field: join(at, fieldDelay), Problem: "must not stand beside deliverAt"}
	}
	return nil
}

// CheckAhead refuses a time that is further ahead of now than a delay may be;
// index is the notification's place in a batch, -1 without one. Its error is a
// *FieldError. A time in the past is accepted and due at once.
func (w When) CheckAhead(now time.Time, index int) error {
	if !w.At.After(now.Add(MaxAheadSeconds * time.Second)) {
		return nil
	}
	field := fieldDeliverAt
	if index >= 0 {
		field = fmt.Sprintf("%s[%d].%s", fieldItems, index, fieldDeliverAt)
	}
	return &FieldError{Field: field, Problem: "must be at most 366 days ahead"}
}

var errTime = errors.New("must be a time as RFC 3339 has it, such as 2026-01-31T09:30:00Z")

// rfc3339 is stricter than time.Parse, which takes a comma and short hours too.
var rfc3339 = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$`)

// parseTime reads a time of RFC 3339 and rounds it up to the millisecond.
func parseTime(value []byte) (time.Time, error) {
	s, err := decodeString(value)
	if err != nil || !rfc3339.MatchString(s) {
		return time.Time{}, errTime
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || t.IsZero() {
		return time.Time{}, errTime
	}
	return t.Add(time.Millisecond - 1).Truncate(time.Millisecond).UTC(), nil
}
