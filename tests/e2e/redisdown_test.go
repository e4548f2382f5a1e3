package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"herald/internal/testing/gatewaytest"
	"herald/internal/testing/redistest"
)

// refusedUses are the requests that need Redis.
var refusedUses = []struct {
	name, method, path, body string
	as                       func(s gatewaytest.Session) string // whose header
}{
	{"publish", "POST", "/notify", `{"userId":"alice","message":1}`, otherHeader},
	{"scheduling", "POST", "/notify", `{"userId":"alice","message":1,"delay":60}`, otherHeader},
	{"sessions API", "POST", "/sessions", `{"userId":"alice"}`, backendHeader},
	{"log-in by cookie", "GET", "/sessions/current", "", gatewaytest.Session.Cookie},
	{"read state", "POST", "/inbox/read", `{"upTo":1}`, userHeader},
	{"inbox", "GET", "/inbox", "", userHeader},
	{"presence", "GET", "/users/alice/presence", "", backendHeader},
	{"/health/redis", "GET", "/health/redis", "", userHeader},
}

func backendHeader(gatewaytest.Session) string { return "Authorization: Bearer " + gatewaytest.Key }
func otherHeader(gatewaytest.Session) string   { return "Authorization: Bearer " + otherKey }
func userHeader(gatewaytest.Session) string    { return bearer("alice") }

// otherKey has a separate window: a stopped Redis counts the limiter's earlier requests
// once it continues.
const otherKey = "another-key-of-a-backend"

// faults are the ways in which Redis can be away: it refuses connections, or it does not
// answer.
var faults = []struct {
	name       string
	begin, end func(*redistest.Server)
}{
	{"kill -9", (*redistest.Server).Kill, (*redistest.Server).Restart},
	{"SIGSTOP", (*redistest.Server).Stop, (*redistest.Server).Continue},
}

// TestWhileRedisIsAway checks the table in docs/delivery.md and prints its figures.
func TestWhileRedisIsAway(t *testing.T) {
	var table strings.Builder
	for _, fault := range faults {
		t.Run(fault.name, func(t *testing.T) {
			// With everysec, Redis answers during an fsync before it has written anything: a kill then loses it.
			r := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
			g := gatewaytest.Start(t, append(gatewaytest.Settings(r.URL()), "HERALD_PUBLISH_LIMIT=4/1h",
				"HERALD_API_KEYS=backend:"+gatewaytest.Key+",other:"+otherKey)...)
			open := connectAs(t, g, "alice")
			session := g.CreateSession("alice")
			before := g.Publish("alice", `"before"`).ID
			open.expect(t, "notification")

			fault.begin(r)
			began := time.Now()
			say := func(use, format string, args ...any) {
				fmt.Fprintf(&table, "%-8s  %-17s "+format+"\n", append([]any{fault.name, use}, args...)...)
			}
			g.AwaitNotReady()
			say("subscription", "unready after %.0f ms", ms(time.Since(began)))
			for _, use := range refusedUses {
				took := refusedWithin(t, g, use.method, use.path, use.body, use.as(session))
				say(use.name, "503 after %.1f ms, at most %.1f ms", ms(took[len(took)/2]), ms(took[len(took)-1]))
			}
			counted := g.Metric(`herald_limiter_decisions_total{decision="failed_open",scope="publish"}`)
			if say("rate limit", "refused none of 10, with a limit of 4"); counted != 0 {
				t.Errorf("%g publishes that were answered 503 count as failed open", counted)
			}
			if a := g.Do("GET", "/ws", "", append([]string{bearer("alice")}, upgrading...)...); a.Status != 503 {
				t.Errorf("a new stream: %d", a.Status)
			}
			open.alive(t) // and stays

			fault.end(r)
			ended := time.Now()
			g.AwaitReady()
			say("subscription", "ready %.0f ms after Redis answers again", ms(time.Since(ended)))
			// The Redis client's pool, once it has failed to dial often, tries again only each second.
			eventually(t, "publishing works again", func() bool { return g.Backend("POST", "/notify", `{"userId":"bob","message":1}`).Status == 200 })
			say("publish", "200 %.0f ms after Redis answers again", ms(time.Since(ended)))
			id := g.Publish("alice", `"after"`).ID
			if m := open.expect(t, "notification"); m.ID != id || m.Prev != before {
				t.Errorf("after the fault: %s, want %d after %d: what was refused must not arrive", m.raw, id, before)
			}
			if a := g.Do("GET", "/sessions/current", "", session.Cookie()); a.Status != 200 {
				t.Errorf("the session after the fault: %d %s", a.Status, a.Body)
			}
		})
	}
	t.Logf("\n%s", &table)
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// refusedWithin asks five times and returns how long each 503 took, in order.
func refusedWithin(t *testing.T, g *gatewaytest.Gateway, method, path, body, header string) (took []time.Duration) {
	t.Helper()
	headers := []string{header, "Content-Type: application/json", g.Origin()}
	for range 5 {
		began := time.Now()
		a := g.Do(method, path, body, headers...)
		took = append(took, time.Since(began))
		if checkProblem(t, a, 503); a.Header.Get("Retry-After") == "" {
			t.Errorf("%s %s: 503 without Retry-After", method, path)
		}
	}
	slices.Sort(took)
	if worst := took[len(took)-1]; worst > 5*time.Second {
		t.Errorf("%s %s: 503 after %v", method, path, worst)
	}
	return took
}
