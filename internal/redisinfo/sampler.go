package redisinfo

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// Options configures a Sampler. The zero value works.
type Options struct {
	Every        time.Duration // between two samples, ± a tenth; default 15 s
	Budget       time.Duration // the longest a round trip may take; default 300 ms
	Subscriber   string        // client name of this node's subscription; default none
	WaitReplicas int           // as in Circumstances
	// Caches are further caches whose hit ratio is watched, with their counters
	// since the program's start. Default none: Redis's own are always watched.
	Caches map[string]func() (hits, misses uint64)
	Log    *slog.Logger // default: nothing is logged
}

// Sampler examines Redis periodically. While Redis is down its Status keeps the last
// Report, with its age.
type Sampler struct {
	// Static after construction.
	rdb redis.UniversalClient
	o   Options

	looking sync.Mutex // held during a sample: one at a time

	// Guarded by looking.
	tried   time.Time // when the last look began
	history history
	slow    slowSeen
	alarms  map[string]*alarm

	mu     sync.Mutex
	status Status // guarded by mu
}

// Status is the last known state of Redis.
type Status struct {
	Report   Report // the last successful one; its At is zero before the first
	Err      error  // why the last look failed; nil if it did not
	Findings []Finding
	Ratios   map[string]Ratio // hit ratios of the last ten minutes, by cache
	Slow     uint64           // slow commands seen in the slow log since the sampler's first look
}

// Age returns the age of the report; 0 without a report.
func (s Status) Age() time.Duration {
	if s.Report.At.IsZero() {
		return 0
	}
	return time.Since(s.Report.At)
}

// NewSampler returns a sampler, which Run starts. rdb must not retry and must respect the
// context's deadline.
func NewSampler(rdb redis.UniversalClient, o Options) *Sampler {
	if o.Every <= 0 {
		o.Every = 15 * time.Second
	}
	if o.Budget <= 0 {
		o.Budget = 300 * time.Millisecond
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Sampler{rdb: rdb, o: o, alarms: map[string]*alarm{}}
}

// Status returns the last known state without a call to Redis.
func (s *Sampler) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// Ping returns the duration of one round trip to Redis.
func (s *Sampler) Ping(ctx context.Context) (time.Duration, error) {
	return Ping(ctx, s.rdb, s.o.Budget)
}

// Run takes a sample at once and then every Options.Every, until ctx ends.
func (s *Sampler) Run(ctx context.Context) {
	for {
		_ = s.Look(ctx) // kept in Status
		wait := time.NewTimer(jitter(s.o.Every))
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return
		}
	}
}

// jitter spreads the samples of nodes that were started together.
func jitter(d time.Duration) time.Duration {
	return d*9/10 + rand.N(d/5+1)
}

// Look takes one sample and logs changes: each finding that became worse (warning), each
// that is well again, and new slow commands, each once per node. It reads at most 32
// entries of the slow log; a larger burst is not seen completely.
func (s *Sampler) Look(ctx context.Context) error {
	s.looking.Lock()
	defer s.looking.Unlock()
	return s.lookLocked(ctx)
}

// Fresh is Status after a new sample, unless the last one began within that time. Of
// concurrent callers one takes the sample; the others wait only if there is no report yet.
func (s *Sampler) Fresh(ctx context.Context, within time.Duration) Status {
	if s.Status().Report.At.IsZero() {
		s.looking.Lock()
	} else if !s.looking.TryLock() {
		return s.Status()
	}
	if time.Since(s.tried) >= within {
		_ = s.lookLocked(ctx) // kept in Status
	}
	s.looking.Unlock()
	return s.Status()
}

func (s *Sampler) lookLocked(ctx context.Context) error {
	s.tried = time.Now()
	r, err := Take(ctx, s.rdb, TakeOptions{Budget: s.o.Budget, Subscriber: s.o.Subscriber})
	if err != nil {
		s.mu.Lock()
		s.status.Err = err
		s.mu.Unlock()
		return err
	}
	first := s.history == nil
	s.history = s.history.with(s.point(r))
	trend := s.history.trend()
	found := Examine(r, Circumstances{Budget: s.o.Budget, WaitReplicas: s.o.WaitReplicas, Trend: trend})
	slow := s.slow.news(r)
	for _, e := range slow {
		s.o.Log.Warn("slow Redis command", "command", e.Name(), "took", e.Took, "client", e.Client, "at", e.At.UTC())
	}
	s.mu.Lock()
	s.status = Status{Report: r, Findings: found, Ratios: trend.Ratios, Slow: s.status.Slow + uint64(len(slow))}
	s.mu.Unlock()
	s.tell(found, first)
	return nil
}

func (s *Sampler) point(r Report) point {
	p := point{at: r.At, caches: map[string]lookups{}}
	if r.Info != nil {
		p.runID, p.clients = r.Info.RunID, r.Info.Clients
		p.caches[Keyspace] = lookups{r.Info.Hits, r.Info.Misses}
	}
	for name, counters := range s.o.Caches {
		hits, misses := counters()
		p.caches[name] = lookups{int64(hits), int64(misses)}
	}
	return p
}

// slowSeen separates new entries of the slow log from those already logged.
type slowSeen struct {
	runID  string
	newest int64 // id
	begun  bool
}

// news returns the slow commands since the last call, oldest first. The first call returns
// none: commands before the start are not new.
func (s *slowSeen) news(r Report) (entries []SlowEntry) {
	if r.SlowLog == nil {
		return nil
	}
	runID := ""
	if r.Info != nil {
		runID = r.Info.RunID
	}
	if !s.begun || runID != s.runID {
		s.newest = -1 // after a restart ids begin at 0
	}
	if s.begun {
		for _, e := range r.SlowLog.Entries {
			if e.ID > s.newest {
				entries = append([]SlowEntry{e}, entries...)
			}
		}
	}
	s.begun, s.runID, s.newest = true, runID, max(s.newest, r.SlowLog.newest)
	return entries
}

// alarm is what has been logged about one finding.
type alarm struct {
	said Level // the worst since it was last well
	well int   // consecutive samples in which it was well
}

// calm is how many consecutive samples a finding must be well before that is logged, so
// that a flapping finding is not logged each time.
const calm = 3

// tell logs findings that are worse than logged before. At the start all warnings together
// are one line; `gateway doctor` gives details.
func (s *Sampler) tell(found []Finding, first bool) {
	var better []string
	for _, f := range found {
		a := s.alarms[f.Name]
		if a == nil {
			a = &alarm{}
			s.alarms[f.Name] = a
		}
		worse := f.Level > max(a.said, Unknown)
		a.saw(f.Level)
		switch {
		case f.quiet:
		case worse && first && f.Level == Warn:
			better = append(better, f.Name)
		case worse:
			s.o.Log.Warn("Redis: "+f.Name, "severity", f.Level.String(), "is", f.Text, "advice", f.Advice)
		case a.said > OK && a.well == calm:
			a.said = OK
			s.o.Log.Info("Redis: "+f.Name+" is well again", "is", f.Text)
		}
	}
	if len(better) > 0 {
		s.o.Log.Info("Redis could be set up better; `gateway doctor` says how", "checks", strings.Join(better, ", "))
	}
}

func (a *alarm) saw(l Level) {
	if l >= Warn {
		a.said, a.well = max(a.said, l), 0
	} else {
		a.well++
	}
}
