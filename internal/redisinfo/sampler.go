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
	Every        time.Duration // between two looks, a tenth more or less; default 15 s
	Budget       time.Duration // the longest a round trip may take; default 300 ms
	Subscriber   string        // client name of this node's subscription; default none
	WaitReplicas int           // as in Circumstances
	// Caches are further caches whose hit ratio is watched, with their counters
	// since the program's start. Default none: Redis's own are always watched.
	Caches map[string]func() (hits, misses uint64)
	Log    *slog.Logger // default: nothing is logged
}

// Sampler looks at Redis again and again. While Redis is down its Status keeps
// the last Report, which has an age.
type Sampler struct {
	// Static after construction.
	rdb redis.UniversalClient
	o   Options

	looking sync.Mutex // held by whoever looks: one at a time

	// Guarded by looking.
	tried   time.Time // when the last look began
	history history
	slow    slowSeen
	alarms  map[string]*alarm

	mu     sync.Mutex
	status Status // guarded by mu
}

// Status is what is known of Redis.
type Status struct {
	Report   Report // the last that could be had; its At is zero if there was none
	Err      error  // why the last look failed; nil if it did not
	Findings []Finding
	Ratios   map[string]Ratio // hit ratios of the last ten minutes, by cache
	Slow     uint64           // slow commands seen in the slow log since the sampler's first look
}

// Age is how old the report is; 0 if there is none.
func (s Status) Age() time.Duration {
	if s.Report.At.IsZero() {
		return 0
	}
	return time.Since(s.Report.At)
}

// NewSampler returns a sampler; Run makes it work. rdb must not retry and must
// heed the context's deadline.
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

// Status returns what is known, without asking Redis.
func (s *Sampler) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// Ping is one round trip to Redis, now.
func (s *Sampler) Ping(ctx context.Context) (time.Duration, error) {
	return Ping(ctx, s.rdb, s.o.Budget)
}

// Run looks at once and then every Options.Every, until ctx ends.
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

// jitter keeps nodes that were started together from asking together.
func jitter(d time.Duration) time.Duration {
	return d*9/10 + rand.N(d/5+1)
}

// Look looks once and logs what has changed: each finding that is worse than
// before at warning level, each that is well again, and new slow commands, each
// once by each node (32 a look at most; what a burst of more pushes out goes unseen).
func (s *Sampler) Look(ctx context.Context) error {
	s.looking.Lock()
	defer s.looking.Unlock()
	return s.lookLocked(ctx)
}

// Fresh is Status after a look, unless one has begun within that time. However
// many ask, one looks; the others wait for it only if nothing is known yet.
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

// slowSeen tells new entries of the slow log from those already seen.
type slowSeen struct {
	runID  string
	newest int64 // id
	begun  bool
}

// news returns the slow commands since the last call, oldest first; on the first
// call none: what was slow before the start is not news.
func (s *slowSeen) news(r Report) (entries []SlowEntry) {
	if r.SlowLog == nil {
		return nil
	}
	runID := ""
	if r.Info != nil {
		runID = r.Info.RunID
	}
	if !s.begun || runID != s.runID {
		s.newest = -1 // ids begin anew, at 0
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

// alarm is what has been said of one finding.
type alarm struct {
	said Level // the worst since it was last well
	well int   // looks in a row at which it was well
}

// calm is how often a finding must be well in a row until that is said, so that
// one that comes and goes is not said each time.
const calm = 3

// tell logs what is worse than was said before. What could merely be better at
// the start is one line: `gateway doctor` says more.
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
