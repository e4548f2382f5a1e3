package redisinfo

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// window is how far back a Trend looks.
const window = 10 * time.Minute

// Trend is what only several samples show.
type Trend struct {
	FewestClients int64            // connected at once, within the window
	Ratios        map[string]Ratio // by cache, within the window
}

// grown reports a growing number of clients: over twice the minimum of the last ten
// minutes, and over a hundred more.
func (t *Trend) grown(clients int64) bool {
	return clients >= 2*t.FewestClients && clients > t.FewestClients+100
}

// Ratio is the hit ratio of a cache.
type Ratio struct {
	Lookups int64 `json:"lookups"`
	Hits    int64 `json:"hits"`
}

// Share returns the ratio, 0 to 1; ok is false while there were too few lookups.
func (r Ratio) Share() (share float64, ok bool) {
	return float64(r.Hits) / float64(max(r.Lookups, 1)), r.Lookups >= enoughLookups
}

// Keyspace is the name of Redis's own lookups among the caches.
const Keyspace = "redis"

const (
	enoughLookups = 1000
	goodRatio     = 0.8
)

// lookups are a cache's counters.
type lookups struct{ hits, misses int64 }

// point is one sample of a history.
type point struct {
	at      time.Time
	runID   string
	clients int64
	caches  map[string]lookups
}

// history is the points of the window, oldest first.
type history []point

// with adds a point, and drops those that are too old or from before a restart of Redis,
// which resets its counters.
func (h history) with(p point) history {
	h = slices.DeleteFunc(h, func(old point) bool { return p.at.Sub(old.at) > window || old.runID != p.runID })
	return append(h, p)
}

func (h history) trend() *Trend {
	first, last := h[0], h[len(h)-1]
	t := &Trend{FewestClients: last.clients, Ratios: map[string]Ratio{}}
	for _, p := range h {
		t.FewestClients = min(t.FewestClients, p.clients)
	}
	for name, now := range last.caches {
		then := first.caches[name]
		hits, misses := now.hits-then.hits, now.misses-then.misses
		if hits < 0 || misses < 0 {
			hits, misses = now.hits, now.misses // CONFIG RESETSTAT
		}
		t.Ratios[name] = Ratio{Lookups: hits + misses, Hits: hits}
	}
	return t
}

// examineHitRatios returns one finding per cache. Without a trend it uses Redis's counters
// since its start.
func examineHitRatios(i *Info, t *Trend) (found []Finding) {
	var ratios map[string]Ratio
	switch {
	case t != nil:
		ratios = t.Ratios
	case i != nil:
		ratios = map[string]Ratio{Keyspace: {Lookups: i.Hits + i.Misses, Hits: i.Hits}}
	}
	for _, name := range slices.Sorted(maps.Keys(ratios)) {
		found = append(found, examineHitRatio(name, ratios[name]))
	}
	return found
}

// examineHitRatio checks a cache. Redis's own ratio is shown without an alarm: Herald
// looks up each new user, Idempotency-Key and rate-limit subject before it exists, so it
// misses by design.
func examineHitRatio(name string, r Ratio) Finding {
	f := Finding{Name: checkHitRatio + " of " + name}
	advice := "let its entries live longer, or cache less: below 80 % it costs more than it saves"
	if name == Keyspace {
		f.Name, f.quiet = checkHitRatio, true
		advice = "look at what is cached in this Redis, if anything is; Herald's own lookups of new users and Idempotency-Keys miss by design"
	}
	part, enough := r.Share()
	if !enough {
		f.Text = fmt.Sprintf("too few lookups to tell (%d)", r.Lookups)
		return f
	}
	f.Text = fmt.Sprintf("%.0f %% of %d lookups found something", 100*part, r.Lookups)
	if part < goodRatio {
		f.Level, f.Advice = Warn, advice
	}
	return f
}
