package notify

import "errors"

// Urgency is what the publisher makes of a notification, in the words of RFC
// 8030, 5.3, without its very-low.
type Urgency uint8

// The zero value is what a publisher means who says nothing.
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

// Skip is why a notification does not reach its recipient, by the recipient's
// own wish. The numbers are stored with the answers to idempotent requests.
type Skip uint8

// The zero value: it does.
const (
	SkipMuted Skip = 2 // the recipient has muted its kind
	SkipQuiet Skip = 3 // ephemeral, in quiet hours: there will be nobody to see it later
)

// String is the word for it in answers; "" for none.
func (s Skip) String() string {
	switch s {
	case SkipMuted:
		return "muted"
	case SkipQuiet:
		return "quiet"
	}
	return ""
}
