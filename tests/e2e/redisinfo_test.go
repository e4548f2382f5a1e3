package e2e

import (
	"slices"
	"strings"
	"testing"

	"herald/internal/testing/gatewaytest"
	"herald/internal/testing/redistest"
)

// redisHealth is the body of /health/redis.
type redisHealth struct {
	Status, Version, UsedMemory, MaxMemoryPolicy string
	LatencyMs, AgeSeconds                        float64
	UsedMemoryBytes, Keys, ConnectedClients      int64
	SubscriberBufferBytes                        *int64
	SlowCommands                                 int64
	NotPermitted                                 []string
	Warnings                                     []finding
}

type finding struct{ Check, Level, Advice string }

// warnings leaves out the findings of a busy machine: a long round trip, slow commands.
func (h redisHealth) warnings() []finding {
	return slices.DeleteFunc(slices.Clone(h.Warnings), func(f finding) bool { return f.Check == "round trip" || f.Check == "slow log" })
}

func healthOfRedis(t *testing.T, g *gatewaytest.Gateway) (h redisHealth) {
	t.Helper()
	a := g.Do("GET", "/health/redis", "")
	if a.Decode(t, &h); a.Status != 200 || h.Status != "ok" || h.LatencyMs <= 0 {
		t.Errorf("/health/redis: %d %s", a.Status, a.Body)
	}
	return h
}

func TestRedisInHealthAndMetrics(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t, "--maxmemory-policy", "allkeys-lru", "--enable-debug-command", "yes")
	g := gatewaytest.Start(t, gatewaytest.Settings(r.URL())...)
	g.Publish("alice", "1")
	rdb := r.Client()
	if names := rdb.ClientList(t.Context()).Val(); !strings.Contains(names, "name=herald-sub-") {
		t.Errorf("the subscription has no name: %s", names)
	}
	eventually(t, "the keys are counted", func() bool { return healthOfRedis(t, g).Keys >= 2 })
	h := healthOfRedis(t, g)
	if h.Version == "" || h.UsedMemory == "" || h.UsedMemoryBytes == 0 || h.MaxMemoryPolicy != "allkeys-lru" || h.ConnectedClients < 2 || h.SubscriberBufferBytes == nil {
		t.Errorf("%+v", h)
	}
	if w := h.warnings(); len(w) == 0 || w[0].Check != "memory policy" || w[0].Level != "fail" || w[0].Advice == "" {
		t.Errorf("warnings %+v", w)
	}
	if err := rdb.Do(t.Context(), "DEBUG", "SLEEP", "0.02").Err(); err != nil {
		t.Fatal(err)
	}
	// A busy machine has more of them, of its own making.
	slept := func() int { return strings.Count(g.Log(), `"command":"DEBUG`) }
	eventually(t, "the slow command is logged", func() bool { return healthOfRedis(t, g).SlowCommands >= 1 && slept() > 0 })
	if n := slept(); n != 1 {
		t.Errorf("logged %d times, want once", n)
	}
	if g.Metric("herald_redis_slowlog_entries_total") < 1 {
		t.Error("the slow command is not counted")
	}
	for series, want := range map[string]float64{
		"herald_redis_up": 1, "herald_redis_aof_enabled": 0, "herald_redis_persistence_ok": 1,
		"herald_redis_primary": 1, "herald_redis_replicas": 0, "herald_redis_subscriber_buffer_bytes": 0, "herald_redis_maxmemory_bytes": 0,
		`herald_redis_subscriber_buffer_limit_bytes{limit="hard"}`: 32 << 20, `herald_redis_finding{check="memory policy"}`: 3,
	} {
		if got := g.Metric(series); got != want {
			t.Errorf("%s %v, want %v", series, got, want)
		}
	}
	for _, series := range []string{"used_memory_bytes", "keys", "connected_clients", "round_trip_seconds", "keyspace_misses_total", "sample_age_seconds"} {
		if got := g.Metric("herald_redis_" + series); got <= 0 {
			t.Errorf("herald_redis_%s %v", series, got)
		}
	}
	r.Kill()
	g.AwaitNotReady()
	checkProblem(t, g.Do("GET", "/health/redis", ""), 503)
	eventually(t, "a look fails", func() bool {
		_ = g.Admin("/stats.json") // looks, if the last look is a second old
		return g.Metric("herald_redis_up") == 0
	})
	if g.Metric("herald_redis_used_memory_bytes") == 0 || g.Metric("herald_redis_sample_age_seconds") == 0 {
		t.Error("what was last known is forgotten")
	}
	var health struct{ Redis struct{ Status string } }
	if g.Do("GET", "/health", "").Decode(t, &health); health.Redis.Status != "unavailable" {
		t.Errorf("/health: %+v", health)
	}
}

// TestRedisThatTellsNothing: with the least permissions in Redis the gateway works and
// reports what it may not read.
func TestRedisThatTellsNothing(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	rules := []any{"ACL", "SETUSER", "app", "reset", "on", ">secret", "~*", "&*", "+@all", "-@admin", "-@dangerous", "-client"}
	if err := r.Client().Do(t.Context(), rules...).Err(); err != nil {
		t.Fatal(err)
	}
	g := gatewaytest.Start(t, gatewaytest.Settings("redis://app:secret@"+r.Addr, "HERALD_STRICT=on")...)
	s := connectAs(t, g, "alice")
	g.Publish("alice", "1")
	s.expect(t, "notification")
	if h := healthOfRedis(t, g); strings.Join(h.NotPermitted, ", ") != "INFO, CONFIG GET, SLOWLOG GET, CLIENT LIST" || len(h.warnings()) != 0 || h.UsedMemory != "" {
		t.Errorf("%+v", h)
	}
	if a := g.Admin("/metrics"); a.Status != 200 || strings.Contains(a.Body, "herald_redis_used_memory_bytes") {
		t.Errorf("what is not told is a metric: %d", a.Status)
	}
}

// TestEmbeddedRedisInHealth: /health/redis works with the embedded Redis.
func TestEmbeddedRedisInHealth(t *testing.T) {
	t.Parallel()
	g := gatewaytest.Start(t)
	if h := healthOfRedis(t, g); h.UsedMemory != "" || len(h.warnings()) != 0 {
		t.Errorf("%+v", h)
	}
	if g.Metric("herald_redis_up") != 1 {
		t.Error("herald_redis_up is not 1")
	}
}
