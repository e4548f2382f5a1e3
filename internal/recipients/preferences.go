package recipients

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
	_ "time/tzdata" // time zones without the host's database

	"herald/notify"
)

// Preferences are a recipient's notification preferences, in the backend's JSON format. The
// zero value delivers everything at once.
type Preferences struct {
	Muted      []string    `json:"muted,omitempty"`
	QuietHours *QuietHours `json:"quietHours,omitempty"`
}

// QuietHours is a daily interval [From, To) of the recipient's local time. It spans
// midnight if To is earlier than From.
type QuietHours struct {
	From     string `json:"from"` // HH:MM
	To       string `json:"to"`
	Timezone string `json:"timezone,omitempty"` // IANA name; "" is UTC
}

// Parse parses and checks a backend's answer. It ignores unknown members.
func Parse(body []byte) (p Preferences, err error) {
	if err := json.Unmarshal(body, &p); err != nil {
		return Preferences{}, fmt.Errorf("preferences: %w", err)
	}
	if p.QuietHours == nil {
		return p, nil
	}
	if _, err := p.QuietHours.include(time.Time{}); err != nil {
		return Preferences{}, fmt.Errorf("preferences: quietHours: %w", err)
	}
	return p, nil
}

// mutes reports whether a kind is muted, by its exact name or by a prefix followed by *.
func (p *Preferences) mutes(kind string) bool {
	for _, m := range p.Muted {
		prefix, pattern := strings.CutSuffix(m, "*")
		if pattern && strings.HasPrefix(kind, prefix) || m == kind && kind != "" {
			return true
		}
	}
	return false
}

// mark sets Skip or Quiet of a draft by these preferences at the time now.
func (p *Preferences) mark(d *notify.Draft, now time.Time) error {
	if p.mutes(d.Kind) {
		d.Skip = notify.SkipMuted
		return nil
	}
	if p.QuietHours == nil || d.Urgency == notify.UrgencyHigh {
		return nil
	}
	quiet, err := p.QuietHours.include(now)
	switch {
	case quiet && d.Ephemeral:
		d.Skip = notify.SkipQuiet
	case quiet:
		d.Quiet = true
	}
	return err
}

var errSameTime = errors.New("from and to are the same")

// include reports whether t is within the quiet hours.
func (q *QuietHours) include(t time.Time) (bool, error) {
	from, err := minuteOfDay(q.From)
	if err != nil {
		return false, fmt.Errorf("from %w", err)
	}
	to, err := minuteOfDay(q.To)
	if err != nil {
		return false, fmt.Errorf("to %w", err)
	}
	if from == to {
		return false, errSameTime
	}
	zone, err := location(q.Timezone)
	if err != nil {
		return false, err
	}
	local := t.In(zone)
	minute := 60*local.Hour() + local.Minute()
	if from < to {
		return from <= minute && minute < to, nil
	}
	return minute >= from || minute < to, nil
}

var errTimeOfDay = errors.New("must be HH:MM, from 00:00 to 23:59")

func minuteOfDay(s string) (int, error) {
	t, err := time.Parse("15:04", s)
	if err != nil || len(s) != len("15:04") {
		return 0, errTimeOfDay
	}
	return 60*t.Hour() + t.Minute(), nil
}

// locations caches time zones by name, because loading one is slow. It is bounded by the
// number of time zones.
var locations sync.Map

func location(name string) (*time.Location, error) {
	if l, ok := locations.Load(name); ok {
		return l.(*time.Location), nil
	}
	if name == "Local" { // the node's time zone is not the recipient's
		return nil, errors.New("unknown timezone")
	}
	l, err := time.LoadLocation(name)
	if err != nil {
		return nil, errors.New("unknown timezone")
	}
	locations.Store(name, l)
	return l, nil
}
