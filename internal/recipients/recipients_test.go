package recipients

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"herald/notify"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMutesKindsAndPrefixes(t *testing.T) {
	p := Preferences{Muted: []string{"exact", "marketing.*", "di*", "a*b", ""}}
	for kind, want := range map[string]bool{
		"exact": true, "exactly": false, "Exact": false, "marketing.sale": true, "marketing.": true, "marketing": false,
		"digest": true, "di": true, "d": false, "a*b": true, "axb": false, "": false,
	} {
		if p.mutes(kind) != want {
			t.Errorf("%q: want %t", kind, want)
		}
	}
	all := Preferences{Muted: []string{"*"}}
	if !all.mutes("") || !all.mutes("x") {
		t.Error("* does not mute everything")
	}
}

func TestQuietHoursFollowTheLocalClock(t *testing.T) {
	berlin := func(from, to string) QuietHours { return QuietHours{from, to, "Europe/Berlin"} }
	for _, row := range []struct {
		hours QuietHours
		at    string
		want  bool
	}{
		{berlin("22:00", "07:00"), "2026-01-15T20:59:59Z", false}, // 21:59 there
		{berlin("22:00", "07:00"), "2026-01-15T21:00:00Z", true},
		{berlin("22:00", "07:00"), "2026-01-16T05:59:59Z", true},
		{berlin("22:00", "07:00"), "2026-01-16T06:00:00Z", false},
		{berlin("22:00", "07:00"), "2026-07-15T20:00:00Z", true}, // summer time
		{berlin("22:00", "07:00"), "2026-07-15T05:00:00Z", false},
		{berlin("02:15", "02:45"), "2026-03-29T01:30:00Z", false}, // the hour that the clock skips
		{berlin("02:15", "02:45"), "2026-10-25T00:30:00Z", true},  // the hour that comes
		{berlin("02:15", "02:45"), "2026-10-25T01:30:00Z", true},  // twice
		{berlin("09:00", "17:00"), "2026-01-15T08:00:00Z", true},
		{berlin("09:00", "17:00"), "2026-01-15T16:00:00Z", false},
		{QuietHours{"00:00", "23:59", ""}, "2026-01-15T23:58:00Z", true},
		{QuietHours{"00:00", "23:59", ""}, "2026-01-15T23:59:00Z", false},
		{QuietHours{"22:00", "07:00", "America/St_Johns"}, "2026-01-15T01:30:00Z", true}, // 3 h 30 min behind
	} {
		at, err := time.Parse(time.RFC3339, row.at)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := row.hours.include(at); got != row.want || err != nil {
			t.Errorf("%+v at %s: %t, %v", row.hours, row.at, got, err)
		}
	}
}

func TestParsesValidPreferencesOnly(t *testing.T) {
	p, err := Parse([]byte(`{"muted":["a.*"],"quietHours":{"from":"22:00","to":"07:00","timezone":"Europe/Berlin","x":1},"y":[]}`))
	want := Preferences{Muted: []string{"a.*"}, QuietHours: &QuietHours{"22:00", "07:00", "Europe/Berlin"}}
	if err != nil || !reflect.DeepEqual(p, want) {
		t.Errorf("%+v, %v", p, err)
	}
	if p, err := Parse([]byte(`{}`)); err != nil || p.Muted != nil || p.QuietHours != nil {
		t.Errorf("%+v, %v", p, err)
	}
	for _, bad := range []string{
		``, `[]`, `{"muted":"a"}`, `{"muted":[1]}`, `{"quietHours":[]}`, `{"quietHours":{}}`,
		`{"quietHours":{"from":"24:00","to":"07:00"}}`, `{"quietHours":{"from":"2:00","to":"07:00"}}`, `{"quietHours":{"from":"22:00","to":"07:60"}}`,
		`{"quietHours":{"from":"22:00","to":"22:00"}}`, `{"quietHours":{"from":"22:00","to":"07:00","timezone":"Local"}}`,
		`{"quietHours":{"from":"22:00","to":"07:00","timezone":"../../etc/passwd"}}`,
	} {
		if p, err := Parse([]byte(bad)); err == nil {
			t.Errorf("%s was accepted: %+v", bad, p)
		}
	}
}

// midnight is within the quiet hours of the preferences night.
var (
	midnight = time.Date(2026, 1, 15, 0, 0, 0, 0, time.UTC)
	night    = Preferences{Muted: []string{"muted"}, QuietHours: &QuietHours{"22:00", "07:00", ""}}
)

func TestMarksDraftsByPreferences(t *testing.T) {
	var asked atomic.Int64
	d := New(func(_ context.Context, user string) (Preferences, error) {
		asked.Add(1)
		switch user {
		case "night":
			return night, nil
		case "unknown":
			return Preferences{}, fmt.Errorf("user: %w", ErrNotFound)
		}
		return Preferences{}, errors.New("backend failed")
	}, Options{Now: func() time.Time { return midnight }})
	drafts := []notify.Draft{
		{UserID: "night", Kind: "muted", Urgency: notify.UrgencyHigh},
		{UserID: "night"},
		{UserID: "night", Urgency: notify.UrgencyHigh},
		{UserID: "night", Ephemeral: true},
		{UserID: "night", Ephemeral: true, Urgency: notify.UrgencyHigh},
		{UserID: "unknown", Kind: "muted"},
		{UserID: "broken", Kind: "muted"},
	}
	d.Mark(t.Context(), drafts)
	for i, want := range []struct {
		skip  notify.Skip
		quiet bool
	}{{notify.SkipMuted, false}, {0, true}, {0, false}, {notify.SkipQuiet, false}, {0, false}, {0, false}, {0, false}} {
		if drafts[i].Skip != want.skip || drafts[i].Quiet != want.quiet {
			t.Errorf("draft %d: skip %q, quiet %t", i, drafts[i].Skip, drafts[i].Quiet)
		}
	}
	if got, want := d.Stats(), (Stats{Muted: 1, Quiet: 1, SkippedQuiet: 1, Wanted: 3, FailedOpen: 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if n := asked.Load(); n != 3 {
		t.Errorf("%d lookups for 3 users", n)
	}
	d.Mark(t.Context(), nil)
}

// The lookups of a thousand recipients run a few at a time. A slow lookup does not affect
// the others, and its draft is delivered.
func TestLookupsAreLimitedInNumberAndTime(t *testing.T) {
	var now, most atomic.Int64
	d := New(func(ctx context.Context, user string) (Preferences, error) {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		if user == "slow" {
			<-ctx.Done()
			return Preferences{}, ctx.Err()
		}
		return Preferences{Muted: []string{"*"}}, nil
	}, Options{Timeout: 300 * time.Millisecond, Most: 4})
	drafts := []notify.Draft{{UserID: "slow"}}
	for i := range 999 {
		drafts = append(drafts, notify.Draft{UserID: fmt.Sprint("user", i)})
	}
	d.Mark(t.Context(), drafts)
	if s := d.Stats(); s.Muted != 999 || s.FailedOpen != 1 || drafts[0].Skip != 0 {
		t.Errorf("%+v", s)
	}
	if n := most.Load(); n > 4 {
		t.Errorf("%d lookups at once", n)
	}
}

func TestTemplatesContainTheUserOnce(t *testing.T) {
	for template, ok := range map[string]bool{
		"https://app/users/{userId}": true, "https://app/p?user={userId}": true, "https://app/?user={userId}": true,
		"https://app/users": false, "https://app/{userId}/{userId}": false, "https://{userId}/x": false, "{userId}": false, "": false,
	} {
		if err := CheckTemplate(template); (err == nil) != ok {
			t.Errorf("%q: %v", template, err)
		}
	}
	if a := Address("https://app/users/{userId}?x=1", "a@b.c"); a != "https://app/users/a@b.c?x=1" {
		t.Error(a)
	}
}
