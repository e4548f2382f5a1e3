// Package recipients applies the recipients' preferences to notifications: muted kinds are
// skipped, and in quiet hours nothing is announced. A Lookup gets the preferences from the
// backend, and caches them. It fails open: a notification whose recipient's preferences
// are not available in time is delivered.
package recipients

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"herald/internal/redisx"
	"herald/notify"
)

// ErrNotFound is returned by a Lookup, possibly wrapped, if the backend has no such user.
// It counts as empty preferences.
var ErrNotFound = errors.New("no preferences")

// Lookup returns a user's preferences. It must return when ctx ends.
type Lookup func(ctx context.Context, userID string) (Preferences, error)

// Options configures a Directory. The zero value works.
type Options struct {
	// Timeout limits how long one publish waits for the preferences of all its
	// recipients. Default 500 ms.
	Timeout time.Duration
	// Most limits the concurrent lookups of one publish. Default 16.
	Most int
	// Now is the clock for quiet hours. Default time.Now.
	Now func() time.Time
	// Log gets a warning when preferences are not available, at most one per second.
	// Default: discarded.
	Log *slog.Logger
}

// Directory applies preferences to drafts. It is safe for concurrent use.
type Directory struct {
	// Static after construction.
	lookup Lookup
	o      Options

	muted, quiet, skippedQuiet, wanted, failedOpen atomic.Uint64
	warnings                                       redisx.Throttle
}

// New returns a Directory that gets preferences from lookup.
func New(lookup Lookup, o Options) *Directory {
	if o.Timeout <= 0 {
		o.Timeout = 500 * time.Millisecond
	}
	if o.Most <= 0 {
		o.Most = 16
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Directory{lookup: lookup, o: o}
}

// Stats holds counters of notifications; each counts in exactly one of the five.
type Stats struct {
	Muted        uint64 // skipped
	Quiet        uint64 // stored but not announced
	SkippedQuiet uint64 // ephemeral, skipped in quiet hours
	Wanted       uint64 // as published
	FailedOpen   uint64 // as published, because preferences were not available in time
}

// Stats returns the counters.
func (d *Directory) Stats() Stats {
	return Stats{
		Muted: d.muted.Load(), Quiet: d.quiet.Load(), SkippedQuiet: d.skippedQuiet.Load(),
		Wanted: d.wanted.Load(), FailedOpen: d.failedOpen.Load(),
	}
}

// Mark sets Skip and Quiet of drafts by their recipients' preferences. It returns within
// Options.Timeout. A draft whose recipient's preferences are not available by then is left
// unchanged.
func (d *Directory) Mark(ctx context.Context, drafts []notify.Draft) {
	ctx, cancel := context.WithTimeout(ctx, d.o.Timeout)
	defer cancel()
	of := make(map[string][]*notify.Draft, len(drafts))
	users := make(chan string, len(drafts)) // each user once
	for i := range drafts {
		user := drafts[i].UserID
		if of[user] == nil {
			users <- user
		}
		of[user] = append(of[user], &drafts[i])
	}
	close(users)
	var group sync.WaitGroup
	for range min(len(of), d.o.Most) - 1 {
		group.Go(func() { d.markAll(ctx, users, of) })
	}
	d.markAll(ctx, users, of)
	group.Wait()
}

func (d *Directory) markAll(ctx context.Context, users <-chan string, of map[string][]*notify.Draft) {
	for user := range users {
		p, err := d.lookup(ctx, user)
		if errors.Is(err, ErrNotFound) {
			err = nil
		}
		for _, draft := range of[user] {
			d.mark(draft, p, err)
		}
	}
}

func (d *Directory) mark(draft *notify.Draft, p Preferences, err error) {
	if err == nil {
		err = p.mark(draft, d.o.Now())
	}
	switch {
	case err != nil:
		d.failedOpen.Add(1)
		d.warn(err)
	case draft.Skip == notify.SkipMuted:
		d.muted.Add(1)
	case draft.Skip == notify.SkipQuiet:
		d.skippedQuiet.Add(1)
	case draft.Quiet:
		d.quiet.Add(1)
	default:
		d.wanted.Add(1)
	}
}

func (d *Directory) warn(err error) {
	if d.warnings.Allow() {
		d.o.Log.Warn("preferences not available, delivering anyway", "error", err, "total", d.failedOpen.Load())
	}
}

const placeholder = "{userId}"

// CheckTemplate refuses a URL template that does not contain {userId} exactly once, in its
// path or query. It does not check the rest of the URL (see fetch.CheckURL).
func CheckTemplate(template string) error {
	before, _, _ := strings.Cut(template, placeholder)
	_, path, slashes := strings.Cut(before, "://")
	if strings.Count(template, placeholder) != 1 || !slashes || !strings.Contains(path, "/") {
		return errors.New("must contain " + placeholder + " once, after the host")
	}
	return nil
}

// Address returns the template's URL for a user.
func Address(template, userID string) string {
	return strings.Replace(template, placeholder, url.PathEscape(userID), 1)
}
