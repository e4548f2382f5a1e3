package redisinfo

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/internal/testing/redistest"
)

func look(t *testing.T, s *Sampler, times int) {
	t.Helper()
	for range times {
		if err := s.Look(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPolicyWarning: at the start, again when it is changed later, and its end.
func TestPolicyWarning(t *testing.T) {
	server := redistest.Start(t, "--maxmemory-policy", "allkeys-lru")
	rdb := server.Client()
	var j journal
	s := NewSampler(rdb, Options{Budget: patient, Log: j.log()})
	look(t, s, 5)
	warned := j.lines(t, "Redis: memory policy")
	if len(warned) != 1 || warned[0]["level"] != "WARN" || !strings.Contains(fmt.Sprint(warned[0]["is"]), "allkeys-lru") {
		t.Fatalf("logged %v, want one warning", warned)
	}
	if better := j.lines(t, "Redis could be"); len(better) != 1 || !strings.Contains(fmt.Sprint(better[0]["checks"]), "persistence") {
		t.Errorf("logged %v, want one line about what could be better", better)
	}
	set := func(policy string) {
		t.Helper()
		if err := rdb.ConfigSet(t.Context(), "maxmemory-policy", policy).Err(); err != nil {
			t.Fatal(err)
		}
	}
	set("noeviction")
	look(t, s, calm-1)
	if n := len(j.lines(t, "Redis: memory policy")); n != 1 {
		t.Errorf("it is said to be well too early: %d lines", n)
	}
	look(t, s, 3)
	if lines := j.lines(t, "Redis: memory policy"); len(lines) != 2 || lines[1]["level"] != "INFO" {
		t.Fatalf("logged %v, want that it is well again, once", lines)
	}
	set("allkeys-random")
	look(t, s, 3)
	if n := len(j.lines(t, "Redis: memory policy")); n != 3 {
		t.Errorf("%d lines, want a third", n)
	}
}

// TestSlowCommands: new ones are logged once, without what they were about.
func TestSlowCommands(t *testing.T) {
	server := redistest.Start(t, "--enable-debug-command", "yes")
	rdb := server.Client()
	var j journal
	s := NewSampler(rdb, Options{Budget: patient, Log: j.log()})
	slow := func() {
		t.Helper()
		script := "local t = redis.call('TIME'); repeat local n = redis.call('TIME') until (n[1]-t[1])*1000000+(n[2]-t[2]) > 15000; return ARGV[1]"
		if err := rdb.Eval(t.Context(), script, []string{"user:{alice}:log"}, "payload").Err(); err != nil {
			t.Fatal(err)
		}
	}
	slow()
	look(t, s, 2)
	if lines := j.lines(t, "slow"); len(lines) != 0 || s.Status().Slow != 0 {
		t.Errorf("what was slow before the start is news: %v", lines)
	}
	if err := rdb.Do(t.Context(), "DEBUG", "SLEEP", "0.02").Err(); err != nil {
		t.Fatal(err)
	}
	slow()
	look(t, s, 3)
	lines := j.lines(t, "slow")
	if len(lines) != 2 || lines[0]["command"] != "DEBUG" || lines[1]["command"] != "EVAL user:{…}:log" || s.Status().Slow != 2 {
		t.Fatalf("logged %v, counted %d, want DEBUG and EVAL", lines, s.Status().Slow)
	}
	if took, _ := lines[1]["took"].(float64); time.Duration(took) < SlowCommand || lines[1]["client"] == "" {
		t.Errorf("%v", lines[1])
	}
	for _, secret := range []string{"alice", "payload", "0.02", "repeat"} {
		if strings.Contains(j.b.String(), secret) {
			t.Errorf("the log tells %q:\n%s", secret, &j.b)
		}
	}
	server.Restart() // its slow log begins anew, at entry 0
	slow()
	look(t, s, 2)
	if n := len(j.lines(t, "slow")); n != 3 {
		t.Errorf("after a restart %d lines, want one more than 2", n)
	}
	server.Restart()
	var first journal
	s = NewSampler(rdb, Options{Budget: patient, Log: first.log()})
	look(t, s, 1)
	slow() // the very first entry that there is
	look(t, s, 2)
	if n := len(first.lines(t, "slow")); n != 1 {
		t.Errorf("%d lines of the slow log's first entry, want one", n)
	}
}

// TestDown: the last report stays, with its age.
func TestDown(t *testing.T) {
	server := redistest.Start(t)
	s := NewSampler(server.Client(), Options{Budget: 500 * time.Millisecond})
	if st := s.Status(); st.Age() != 0 || st.Err != nil || st.Findings != nil {
		t.Errorf("before the first look: %+v", st)
	}
	await(t, "a first look", func() bool { return s.Look(t.Context()) == nil })
	before, age := s.Status(), s.Status().Age()
	server.Stop()
	if err := s.Look(t.Context()); err == nil {
		t.Fatal("a Redis that is stopped was looked at")
	}
	if st := s.Status(); st.Err == nil || st.Report.Info == nil || !st.Report.At.Equal(before.Report.At) || st.Age() <= age {
		t.Errorf("while it is down: %+v", st)
	}
	server.Continue()
	await(t, "a later look", func() bool { return s.Look(t.Context()) == nil })
	if st := s.Status(); st.Err != nil || !st.Report.At.After(before.Report.At) {
		t.Errorf("afterwards: %+v", st)
	}
}

// TestFresh: however many ask, Redis is asked once in that time.
func TestFresh(t *testing.T) {
	server := redistest.Start(t)
	rdb := server.Client()
	s := NewSampler(rdb, Options{Budget: patient})
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if st := s.Fresh(t.Context(), time.Hour); st.Report.Info == nil {
				t.Error("nothing is known")
			}
		})
	}
	all.Wait()
	first := s.Status().Report.At
	if n := rdb.Info(t.Context(), "commandstats").Val(); !strings.Contains(n, "cmdstat_slowlog|get:calls=1,") {
		t.Errorf("asked more than once: %s", n)
	}
	if !s.Fresh(t.Context(), 0).Report.At.After(first) {
		t.Error("it did not look")
	}
}

func TestGrowingClients(t *testing.T) {
	server := redistest.Start(t)
	var j journal
	s := NewSampler(server.Client(), Options{Budget: patient, Log: j.log()})
	look(t, s, 1)
	var leaked []net.Conn
	for range 120 {
		c, err := net.Dial("tcp", server.Addr)
		if err != nil {
			t.Fatal(err)
		}
		leaked = append(leaked, c)
	}
	await(t, "the growth is noticed", func() bool { look(t, s, 1); return len(j.lines(t, "Redis: clients")) > 0 })
	look(t, s, 3)
	if lines := j.lines(t, "Redis: clients"); len(lines) != 1 || lines[0]["level"] != "WARN" {
		t.Errorf("logged %v, want one warning", lines)
	}
	for _, c := range leaked {
		_ = c.Close()
	}
	await(t, "it is well again", func() bool { look(t, s, 1); return len(j.lines(t, "Redis: clients is well")) == 1 })
}

// TestHitRatio watches Redis's own lookups and those of a cache.
func TestHitRatio(t *testing.T) {
	server := redistest.Start(t)
	rdb := server.Client()
	var hits, misses atomic.Uint64
	var j journal
	s := NewSampler(rdb, Options{Budget: patient, Log: j.log(), Caches: map[string]func() (uint64, uint64){
		"users": func() (uint64, uint64) { return hits.Load(), misses.Load() },
	}})
	look(t, s, 1)
	lookUp := func(key string, n int) {
		t.Helper()
		if _, err := rdb.Pipelined(t.Context(), func(p redis.Pipeliner) error {
			for range n {
				p.Exists(t.Context(), key)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	rdb.Set(t.Context(), "there", 1, 0)
	lookUp("there", 700)
	lookUp("absent", 300)
	hits.Store(900)
	misses.Store(100)
	look(t, s, 2)
	st := s.Status()
	if level(t, st.Findings, "hit ratio") != Warn || level(t, st.Findings, "hit ratio of users") != OK {
		t.Errorf("%+v", st.Findings)
	}
	if r := st.Ratios["redis"]; r != (Ratio{Lookups: 1000, Hits: 700}) {
		t.Errorf("Redis's own: %+v", r)
	}
	lookUp("there", 600)
	hits.Store(1000)
	misses.Store(1000)
	look(t, s, calm)
	st = s.Status()
	if level(t, st.Findings, "hit ratio") != OK || level(t, st.Findings, "hit ratio of users") != Warn {
		t.Errorf("%+v", st.Findings)
	}
	hits.Store(9000)
	look(t, s, calm)
	if lines := j.lines(t, "Redis: hit ratio"); len(lines) != 2 || lines[0]["level"] != "WARN" || lines[1]["level"] != "INFO" {
		t.Errorf("logged %v, want a warning of the cache and its recovery", lines)
	}
}

func TestRun(t *testing.T) {
	server := redistest.Start(t)
	s := NewSampler(server.Client(), Options{Every: time.Millisecond, Budget: patient})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	await(t, "a look", func() bool { return s.Status().Report.Info != nil })
	first := s.Status().Report.At
	await(t, "another", func() bool { return s.Status().Report.At.After(first) })
	cancel()
	<-done
}

func TestJitter(t *testing.T) {
	for range 1000 {
		if d := jitter(15 * time.Second); d < 13500*time.Millisecond || d > 16500*time.Millisecond {
			t.Fatal(d)
		}
	}
}
