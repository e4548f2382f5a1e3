package notify

import "errors"

// Urgency is a notification's urgency, with the values of RFC 8030, section 5.3,
// except very-low.
type Urgency uint8

// The zero value is the default.
const (
	UrgencyNormal Urgency = iota
	UrgencyLow
	UrgencyHigh // announced in quiet hours too
)

func parseUrgency(value []byte) (Urgency, error) {
	switch string(value) {
	case `"low"`:
		return UrgencyLow, nil
	case `"normal"`:
		return UrgencyNormal, nil
	case `"high"`:
		return UrgencyHigh, nil
	}
	return 0, errors.New(`must be "low", "normal" or "high"`)
}

// Skip is the recipient's preference that keeps a notification from being delivered.
// The numbers are stored with the answers to idempotent requests.
type Skip uint8

// The zero value: it is delivered.
const (
	SkipMuted Skip = 2 // the recipient has muted its kind
	SkipQuiet Skip = 3 // ephemeral, in quiet hours: it is not stored for later either
)

// String returns the value used in HTTP answers; "" for none.
func (s Skip) String() string {
	switch s {
	case SkipMuted:
		return "muted"
	case SkipQuiet:
		return "quiet"
	}
	return ""
}
