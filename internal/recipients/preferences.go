package recipients

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
	_ "time/tzdata" // time zones are known wherever this runs

	"herald/notify"
)

// Preferences are what a recipient wants, as the backend says it and as they are
// cached. The zero value wants everything at once.
type Preferences struct {
	Muted      []string    `json:"muted,omitempty"`
	QuietHours *QuietHours `json:"quietHours,omitempty"`
}

// QuietHours are from a time of day, included, to another, excluded, on the
// recipient's clock: past midnight if To is the earlier one.
type QuietHours struct {
	From     string `json:"from"` // HH:MM
	To       string `json:"to"`
	Timezone string `json:"timezone,omitempty"` // IANA name; "" is UTC
}

// Parse reads a backend's answer. Members it does not know are ignored.
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

// mutes reports whether a kind is muted: by its exact name, or by a pattern that
// ends in * and has everything before that in common with it.
func (p *Preferences) mutes(kind string) bool {
	for _, m := range p.Muted {
		prefix, pattern := strings.CutSuffix(m, "*")
		if pattern && strings.HasPrefix(kind, prefix) || m == kind && kind != "" {
			return true
		}
	}
	return false
}

// mark marks a draft as these preferences ask, at that time.
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

// locations are the time zones in use by name: reading one takes longer than all
// the rest. There are only as many as have names.
var locations sync.Map

func location(name string) (*time.Location, error) {
	if l, ok := locations.Load(name); ok {
		return l.(*time.Location), nil
	}
	if name == "Local" { // of this node, which is nobody's
		return nil, errors.New("timezone is not known")
	}
	l, err := time.LoadLocation(name)
	if err != nil {
		return nil, errors.New("timezone is not known")
	}
	locations.Store(name, l)
	return l, nil
}
