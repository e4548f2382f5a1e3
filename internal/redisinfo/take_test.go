package redisinfo

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"herald/internal/redisx"
	"herald/internal/testing/redistest"
)

// patient is a budget that a busy machine keeps to.
const patient = 20 * time.Second

func take(t *testing.T, rdb redis.UniversalClient) Report {
	t.Helper()
	r, err := Take(t.Context(), rdb, TakeOptions{Budget: patient, Subscriber: "herald-sub-test"})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestTake(t *testing.T) {
	s := redistest.Start(t, "--maxmemory", "64mb", "--maxmemory-policy", "noeviction", "--appendonly", "yes", "--appendfsync", "everysec",
		"--client-output-buffer-limit", "pubsub 16mb 4mb 30", "--slowlog-log-slower-than", "5000", "--notify-keyspace-events", "KEA")
	rdb := s.Client()
	ctx := t.Context()
	for i := range 10 {
		rdb.Set(ctx, fmt.Sprint("k", i), "v", time.Duration(i%2)*time.Hour)
	}
	rdb.Get(ctx, "k0")
	rdb.Get(ctx, "none")
	r := take(t, rdb)
	if r.Info == nil || r.Config == nil || r.SlowLog == nil || r.Subscribers == nil || len(r.Refused) > 0 {
		t.Fatalf("something is missing: %+v", r)
	}
	i, c := r.Info, r.Config
	if i.Version == "" || i.RunID == "" || i.Mode != "standalone" || i.Role != "master" || !i.AOF || i.AOFWrite != "ok" {
		t.Errorf("info %+v", i)
	}
	if i.MaxMemory != 64<<20 || i.UsedMemory < 100_000 || i.Policy != "noeviction" || i.Clients < 1 || i.MaxClients < 1 {
		t.Errorf("info %+v", i)
	}
	if i.Keys != 10 || i.ExpiringKeys != 5 || i.Hits != 1 || i.Misses != 1 {
		t.Errorf("keys %d, expiring %d, hits %d, misses %d", i.Keys, i.ExpiringKeys, i.Hits, i.Misses)
	}
	want := Config{AppendFsync: "everysec", SlowerThan: 5 * time.Millisecond, PubSubLimit: BufferLimit{16 << 20, 4 << 20, 30 * time.Second}}
	got := *c
	got.KeyspaceEvents = ""
	if got != want || !strings.Contains(c.KeyspaceEvents, "K") {
		t.Errorf("config %+v, want %+v", c, want)
	}
	if r.RoundTrip <= 0 || r.Slowest < r.RoundTrip || r.Probes != 3 || r.Clock == nil || r.Clock.Abs() > time.Second {
		t.Errorf("round trip %v, slowest %v of %d, clock %v", r.RoundTrip, r.Slowest, r.Probes, r.Clock)
	}
	if found := Examine(r, Circumstances{}); level(t, found, "persistence") != OK || level(t, found, "keyspace notifications") != Warn {
		t.Errorf("found %+v", found)
	}
}

func TestPolicies(t *testing.T) {
	s := redistest.Start(t, "--maxmemory-policy", "allkeys-lru")
	rdb := s.Client()
	for _, tt := range []struct {
		policy, maxMemory string
		want              Level
	}{
		{"allkeys-lru", "0", Fail}, {"allkeys-lfu", "64mb", Fail}, {"allkeys-random", "64mb", Fail},
		{"volatile-lru", "64mb", Fail}, {"volatile-ttl", "0", Warn}, {"noeviction", "64mb", OK},
	} {
		for name, value := range map[string]string{"maxmemory-policy": tt.policy, "maxmemory": tt.maxMemory} {
			if err := rdb.ConfigSet(t.Context(), name, value).Err(); err != nil {
				t.Fatal(err)
			}
		}
		if got := level(t, Examine(take(t, rdb), Circumstances{}), CheckPolicy); got != tt.want {
			t.Errorf("%s with maxmemory %s: %s, want %s", tt.policy, tt.maxMemory, got, tt.want)
		}
	}
}

// TestRefused: a managed Redis that tells little is looked at as far as it lets.
func TestRefused(t *testing.T) {
	s := redistest.Start(t)
	admin := s.Client()
	for name, tt := range map[string]struct{ rules, refused string }{
		"nothing but data": {"~* &* +@all -@admin -@dangerous -client -time", "TIME, INFO, CONFIG GET, SLOWLOG GET, CLIENT LIST"},
		"no configuration": {"~* &* +@all -config", "CONFIG GET"},
		"no slow log":      {"~* &* +@all -slowlog -client|list", "SLOWLOG GET, CLIENT LIST"},
	} {
		rules := append([]any{"ACL", "SETUSER", "app", "reset", "on", ">secret"}, words(tt.rules)...)
		if err := admin.Do(t.Context(), rules...).Err(); err != nil {
			t.Fatal(err)
		}
		rdb := redis.NewClient(redisx.Configure(&redis.Options{Addr: s.Addr, Username: "app", Password: "secret"}, 0))
		r := take(t, rdb)
		_ = rdb.Close()
		if got := strings.Join(r.Refused, ", "); got != tt.refused {
			t.Errorf("%s: refused %s, want %s", name, got, tt.refused)
		}
		if r.RoundTrip <= 0 || (r.Info == nil) != slices.Contains(r.Refused, "INFO") || (r.Config == nil) != slices.Contains(r.Refused, "CONFIG GET") {
			t.Errorf("%s: %+v", name, r)
		}
		found := Examine(r, Circumstances{})
		if worst := Worst(found); worst > Warn {
			t.Errorf("%s: what is not told is no failure: %+v", name, found)
		}
		if r.Config == nil && level(t, found, "CONFIG GET") != Unknown {
			t.Errorf("%s: it does not say what is not told: %+v", name, found)
		}
	}
}

func words(s string) (list []any) {
	for _, w := range strings.Fields(s) {
		list = append(list, w)
	}
	return list
}

func TestRenamed(t *testing.T) {
	s := redistest.Start(t, "--rename-command", "CONFIG", "", "--rename-command", "SLOWLOG", "")
	r := take(t, s.Client())
	if got := strings.Join(r.Refused, ", "); got != "CONFIG GET, SLOWLOG GET" || r.Info == nil || r.Info.Policy != "noeviction" {
		t.Errorf("refused %s, info %+v", got, r.Info)
	}
}

func TestEmbedded(t *testing.T) {
	m := miniredis.RunT(t)
	rdb := redis.NewClient(redisx.Configure(&redis.Options{Addr: m.Addr()}, 0))
	defer rdb.Close()
	r := take(t, rdb)
	if r.Info != nil || r.RoundTrip <= 0 || r.Clock == nil {
		t.Errorf("%+v", r)
	}
	if found := Examine(r, Circumstances{}); Worst(found) > Unknown {
		t.Errorf("%+v", found)
	}
}

func TestNoAnswer(t *testing.T) {
	s := redistest.Start(t)
	rdb := s.Client()
	take(t, rdb)
	s.Stop()
	if _, err := Take(t.Context(), rdb, TakeOptions{Budget: 50 * time.Millisecond}); err == nil {
		t.Error("a Redis that is stopped was looked at")
	}
	if _, err := Ping(t.Context(), rdb, 50*time.Millisecond); err == nil {
		t.Error("a Redis that is stopped answered")
	}
	s.Continue()
	s.Kill()
	if _, err := Take(t.Context(), rdb, TakeOptions{Budget: patient}); err == nil {
		t.Error("a Redis that is gone was looked at")
	}
}

// TestBusy: a Redis that a script holds answers, and cannot work.
func TestBusy(t *testing.T) {
	s := redistest.Start(t, "--lua-time-limit", "5")
	rdb := s.Client()
	spin := redis.NewClient(redisx.Configure(&redis.Options{Addr: s.Addr, ReadTimeout: patient}, 0))
	defer spin.Close()
	done := make(chan error, 1)
	go func() { done <- spin.Eval(context.Background(), "while true do end", nil).Err() }()
	await(t, "BUSY", func() bool {
		_, err := Take(t.Context(), rdb, TakeOptions{Budget: patient})
		return err != nil && strings.Contains(err.Error(), "BUSY")
	})
	if err := rdb.ScriptKill(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	<-done
	take(t, rdb)
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patient); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s", patient, what)
		}
	}
}

func TestReplication(t *testing.T) {
	primary := redistest.Start(t, "--repl-diskless-sync-delay", "0")
	host, port, _ := net.SplitHostPort(primary.Addr)
	rdb := primary.Client()
	if level(t, Examine(take(t, rdb), Circumstances{WaitReplicas: 1}), "replication") != Fail {
		t.Error("a replica that is waited for may be missing")
	}
	replica := redistest.Start(t, "--replicaof", host+" "+port, "--repl-diskless-sync-delay", "0")
	await(t, "the replica is online", func() bool {
		r := take(t, rdb).Info.Replicas
		return len(r) == 1 && r[0].State == "online"
	})
	r := take(t, rdb)
	if got := level(t, Examine(r, Circumstances{WaitReplicas: 1}), "replication"); got != OK || r.Info.Replicas[0].Addr != replica.Addr {
		t.Errorf("%s: %+v", got, r.Info.Replicas)
	}
	if got := level(t, Examine(take(t, replica.Client()), Circumstances{}), "replication"); got != Fail {
		t.Errorf("a replica instead of the primary: %s", got)
	}
	replica.Stop()
	if err := rdb.Set(t.Context(), "k", strings.Repeat("x", 1<<20), 0).Err(); err != nil {
		t.Fatal(err)
	}
	if lag := take(t, rdb).Info.Replicas[0].Bytes; lag < 1<<20 {
		t.Errorf("a replica that is stopped is %d bytes behind, want a MiB", lag)
	}
	replica.Continue()
	await(t, "the replica has caught up", func() bool { return take(t, rdb).Info.Replicas[0].Bytes == 0 })
}

func TestSubscriberBuffer(t *testing.T) {
	s := redistest.Start(t, "--client-output-buffer-limit", "pubsub 32mb 8mb 60")
	rdb := s.Client()
	if b := take(t, rdb).Subscribers; b.Count != 0 || b.Found {
		t.Errorf("without subscribers: %+v", b)
	}
	deaf, err := net.Dial("tcp", s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	if _, err := deaf.Write([]byte("CLIENT SETNAME herald-sub-test\r\nSUBSCRIBE c\r\n")); err != nil {
		t.Fatal(err)
	}
	await(t, "the subscription", func() bool { return take(t, rdb).Subscribers.Found })
	payload := strings.Repeat("x", 1<<20)
	for range 20 { // more than the kernel's buffers take
		if err := rdb.Publish(t.Context(), "c", payload).Err(); err != nil {
			t.Fatal(err)
		}
	}
	r := take(t, rdb)
	if b := r.Subscribers; b.Count != 1 || b.Own < 5<<20 || b.Largest != b.Own {
		t.Errorf("%+v, want more than 5 MiB waiting", b)
	}
	if level(t, Examine(r, Circumstances{}), "subscriber buffer") != Warn {
		t.Error("no warning before Redis drops the subscriber")
	}
}

func TestFailedSave(t *testing.T) {
	s := redistest.Start(t)
	rdb := s.Client()
	if err := os.RemoveAll(s.Dir()); err != nil {
		t.Fatal(err)
	}
	if err := rdb.BgSave(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	await(t, "the failure is told", func() bool {
		return level(t, Examine(take(t, rdb), Circumstances{}), "persistence") == Fail
	})
}
