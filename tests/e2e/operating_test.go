package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"herald/internal/testing/gatewaytest"
)

func TestHealthAndMetrics(t *testing.T) {
	g, r := node(t)
	s := connectAs(t, g, "alice")
	g.Publish("alice", "1")
	s.expect(t, "notification")
	for _, path := range []string{"/health", "/health/live", "/health/ready", "/health/redis"} {
		a := g.Do("GET", path, "")
		var body map[string]any
		if a.Decode(t, &body); a.Status != 200 || body["status"] != "ok" {
			t.Errorf("%s: %d %s", path, a.Status, a.Body)
		}
		if head := g.Do("HEAD", path, ""); head.Status != 200 || head.Body != "" {
			t.Errorf("HEAD %s: %d", path, head.Status)
		}
	}
	var health struct {
		LatencyMs  float64 `json:"latencyMs"`
		UsedMemory string  `json:"usedMemory"`
	}
	if g.Do("GET", "/health/redis", "").Decode(t, &health); health.LatencyMs <= 0 || health.UsedMemory == "" {
		t.Errorf("/health/redis: %+v", health)
	}

	for _, path := range []string{"/metrics", "/debug/pprof/", "/debug/pprof/goroutine"} {
		checkProblem(t, g.Do("GET", path, ""), 404)
		if a := g.Admin(path); a.Status != 200 {
			t.Errorf("admin %s: %d", path, a.Status)
		}
	}
	if !strings.HasPrefix(g.AdminURL, "http://127.0.0.1:") {
		t.Errorf("the admin listener is at %s", g.AdminURL)
	}
	if a := g.Admin("/notify"); a.Status != 404 {
		t.Errorf("admin /notify: %d", a.Status)
	}
	for series, want := range map[string]float64{
		"herald_connections": 1, "herald_users": 1, "herald_ready": 1, "herald_messages_delivered_total": 1,
	} {
		if got := g.Metric(series); got != want {
			t.Errorf("%s %v, want %v", series, got, want)
		}
	}
	for line := range strings.Lines(g.Admin("/metrics").Body) {
		if strings.Contains(line, "alice") || strings.Contains(line, gatewaytest.Key) {
			t.Errorf("a metric names a user or a key: %s", line)
		}
	}
	r.Kill()
	g.AwaitNotReady()
	checkProblem(t, g.Do("GET", "/health/redis", ""), 503)
	if a := g.Do("GET", "/health", ""); !json.Valid([]byte(a.Body)) {
		t.Errorf("/health without Redis: %d %s", a.Status, a.Body)
	}
	s.alive(t)
}

func TestAdminListenerCanBeOff(t *testing.T) {
	g, _ := node(t, "HERALD_ADMIN_LISTEN=off")
	if g.AdminURL != "" {
		t.Errorf("the admin listener is at %s", g.AdminURL)
	}
	checkProblem(t, g.Do("GET", "/metrics", ""), 404)
}
