package e2e

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"herald/internal/testing/gatewaytest"
)

// backend is an application that serves its users' preferences.
type backend struct {
	*httptest.Server

	mu      sync.Mutex
	answers map[string]func(http.ResponseWriter) // by path; guarded by mu
	asked   map[string]int                       // by path; guarded by mu
	bearer  string                               // of the last request; guarded by mu
}

func startBackend(t *testing.T) *backend {
	b := &backend{answers: map[string]func(http.ResponseWriter){}, asked: map[string]int{}}
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.mu.Lock()
		b.asked[r.URL.Path]++
		b.bearer = r.Header.Get("Authorization")
		answer := b.answers[r.URL.Path]
		b.mu.Unlock()
		if answer == nil {
			http.NotFound(w, r)
			return
		}
		answer(w)
	}))
	t.Cleanup(b.Close)
	return b
}

func (b *backend) says(path string, answer func(http.ResponseWriter)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answers[path] = answer
}

func (b *backend) wants(user, preferences string) { b.says("/users/"+user, body(preferences)) }

func body(text string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) { _, _ = io.WriteString(w, text) }
}

func (b *backend) times(path string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.asked[path]
}

func (b *backend) settings(more ...string) []string {
	return append([]string{
		"HERALD_RECIPIENTS_URL=" + b.URL + "/users/{userId}", "HERALD_RECIPIENTS_TOKEN=backend-token",
		"HERALD_RECIPIENTS_TIMEOUT=20s", // a busy machine is not a backend that is away
	}, more...)
}

// quietFrom returns quiet hours that begin after d and last two hours.
func quietFrom(d time.Duration) string {
	from := time.Now().UTC().Add(d)
	return `{"quietHours":{"from":"` + from.Format("15:04") + `","to":"` + from.Add(2*time.Hour).Format("15:04") + `","timezone":"UTC"}}`
}

func wantAnswer(t *testing.T, g *gatewaytest.Gateway, path, request, want string, header ...string) gatewaytest.Answer {
	t.Helper()
	a := g.Backend("POST", path, request, header...)
	if a.Status != 200 || !strings.HasPrefix(a.Body, want) {
		t.Errorf("%s: %d %s, want %s", request, a.Status, a.Body, want)
	}
	return a
}

func TestMuted(t *testing.T) {
	app := startBackend(t)
	app.wants("alice", `{"muted":["marketing.*","digest"],"more":1}`)
	a, b, _ := twoNodes(t, app.settings()...)
	sockets := []*socket{connectAs(t, a, "alice"), connectAs(t, b, "bob")}
	const muted = `{"ok":true,"skipped":"muted"}`
	wantAnswer(t, a, "/notify", `{"userId":"alice","type":"marketing.sale","message":1}`, muted)
	wantAnswer(t, b, "/notify", `{"userId":"alice","type":"digest","message":2,"urgency":"high"}`, muted)
	wantAnswer(t, a, "/notify", `{"userId":"alice","type":"digest.weekly","message":3}`, `{"ok":true,"id":`)
	wantAnswer(t, b, "/notify", `{"userIds":["alice","bob"],"type":"marketing.sale","message":4}`,
		`{"ok":true,"results":[{"userId":"alice","ok":true,"skipped":"muted"},{"userId":"bob","ok":true,"id":`)
	batch := `{"notifications":[{"userId":"alice","type":"digest","message":5},{"userId":"alice","message":6},{"userId":"","message":7}]}`
	wantAnswer(t, a, "/notify/batch", batch, `{"ok":true,"results":[{"ok":true,"skipped":"muted"},{"ok":true,"id":`)

	for i, want := range [][]string{{"3", "6"}, {"4"}} {
		for _, message := range want {
			if m := sockets[i].expect(t, "notification"); string(m.Message) != message {
				t.Errorf("socket %d: %s, want message %s", i, m.raw, message)
			}
		}
		if rest := sockets[i].alive(t); len(rest) > 0 {
			t.Errorf("socket %d: also %s", i, rest[0].raw)
		}
	}
	// One question for each user, whichever nodes publish.
	if n, m := app.times("/users/alice"), app.times("/users/bob"); n != 1 || m != 1 {
		t.Errorf("asked %d and %d times", n, m)
	}
	if app.bearer != "Bearer backend-token" {
		t.Errorf("asked with %q", app.bearer)
	}
	skipped := a.Metric(`herald_recipients_total{decision="muted"}`) + b.Metric(`herald_recipients_total{decision="muted"}`)
	hits := a.Metric(`herald_cache_total{cache="recipients",outcome="hit"}`) + b.Metric(`herald_cache_total{cache="recipients",outcome="hit"}`)
	if skipped != 4 || hits != 4 {
		t.Errorf("metrics: %v muted, %v hits", skipped, hits)
	}
}

// The preferences of a scheduled notification are looked up when it is due, not before.
func TestMutedWhenDue(t *testing.T) {
	app := startBackend(t)
	app.wants("alice", `{"muted":["digest"]}`)
	g, _ := node(t, app.settings()...)
	s := connectAs(t, g, "alice")
	for _, request := range []string{
		`{"userId":"alice","type":"digest","message":1,"delay":1}`, `{"userId":"alice","type":"order","message":2,"delay":1}`,
	} {
		wantAnswer(t, g, "/notify", request, `{"ok":true,"scheduled":`)
	}
	if n := app.times("/users/alice"); n != 0 {
		t.Errorf("asked %d times before anything was due", n)
	}
	if f := s.expect(t, "notification"); !strings.Contains(f.raw, `"message":2`) {
		t.Errorf("delivered %s", f.raw)
	}
	if a := g.Backend("GET", "/users/alice/scheduled", ""); strings.Contains(a.Body, "digest") {
		t.Errorf("still scheduled: %s", a.Body)
	}
	if n := g.Metric(`herald_recipients_total{decision="muted"}`); n != 1 {
		t.Errorf("%v muted", n)
	}
}

// A retry with the same key gets the first answer, although the preferences have changed
// since.
func TestSkippedIsIdempotent(t *testing.T) {
	app := startBackend(t)
	app.wants("alice", `{"muted":["*"]}`)
	g, r := node(t, app.settings()...)
	const request = `{"userIds":["alice","bob"],"message":1}`
	first := wantAnswer(t, g, "/notify", request, `{"ok":true,"results":[{"userId":"alice","ok":true,"skipped":"muted"},{"userId":"bob","ok":true,"id":`, "Idempotency-Key: k")
	app.wants("alice", `{}`)
	app.wants("bob", `{"muted":["*"]}`)
	if n, err := r.Client().Del(t.Context(), "cache:recipients:alice", "cache:recipients:bob").Result(); n != 2 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	again := wantAnswer(t, g, "/notify", request, first.Body, "Idempotency-Key: k")
	if again.Header.Get("Idempotency-Replay") != "true" || app.times("/users/alice") != 2 {
		t.Errorf("%v, asked %d times", again.Header, app.times("/users/alice"))
	}
}

func TestQuietHours(t *testing.T) {
	app := startBackend(t)
	app.wants("alice", quietFrom(-time.Hour))
	app.wants("bob", quietFrom(time.Hour))
	g, _ := node(t, app.settings()...)
	alice, bob := connectAs(t, g, "alice"), connectAs(t, g, "bob")
	publish := func(user, more string) (r gatewaytest.Receipt) {
		t.Helper()
		wantAnswer(t, g, "/notify", `{"userId":"`+user+`","message":1`+more+`}`, `{"ok":true,"id":`).Decode(t, &r)
		return r
	}
	bobs := publish("bob", "")
	if m := bob.expect(t, "notification"); m.ID != bobs.ID || bobs.Nodes != 1 {
		t.Errorf("%s, %+v", m.raw, bobs)
	}
	quiet := []gatewaytest.Receipt{publish("alice", ""), publish("alice", `,"urgency":"low"`), publish("alice", `,"urgency":"normal"`)}
	for _, r := range quiet {
		if r.Nodes != 0 {
			t.Errorf("announced: %+v", r)
		}
	}
	wantAnswer(t, g, "/notify", `{"userId":"alice","message":1,"ephemeral":true}`, `{"ok":true,"skipped":"quiet"}`)
	if early := alice.alive(t); len(early) > 0 {
		t.Errorf("announced: %s", early[0].raw)
	}

	// The inbox has it, and the next announcement delivers it too, in order.
	var inbox struct{ Unread int }
	if g.Do("GET", "/inbox", "", bearer("alice")).Decode(t, &inbox); inbox.Unread != 3 {
		t.Errorf("unread %d", inbox.Unread)
	}
	all := append(quiet, publish("alice", `,"urgency":"high"`))
	for i, r := range all {
		if m := alice.expect(t, "notification"); m.ID != r.ID {
			t.Errorf("frame %d: %s, want id %d", i, m.raw, r.ID)
		}
	}
	resumed, _ := connect(t, g, dialOptions{path: "/ws?since=" + strconv.FormatInt(quiet[0].ID, 10), header: []string{bearer("alice")}})
	for _, r := range all[1:] {
		if m := resumed.expect(t, "notification"); m.ID != r.ID {
			t.Errorf("resumed with %s, want id %d", m.raw, r.ID)
		}
	}
}

func TestUrgencyIsChecked(t *testing.T) {
	g, _ := node(t)
	for _, urgency := range []string{`"very-low"`, `"HIGH"`, `1`, `null`, `""`} {
		p := checkProblem(t, g.Backend("POST", "/notify", `{"userId":"a","message":1,"urgency":`+urgency+`}`), 400)
		if !strings.Contains(p.Detail, "urgency") {
			t.Errorf("%s: %q", urgency, p.Detail)
		}
	}
	g.PublishBody(`{"userId":"a","message":1,"urgency":"high"}`)
}

// Notifications are delivered, and a metric counts it, however the backend fails.
func TestBackendThatFails(t *testing.T) {
	app := startBackend(t)
	hang := make(chan struct{})
	unhang := sync.OnceFunc(func() { close(hang) })
	t.Cleanup(unhang) // before the backend is closed, which waits
	for user, answer := range map[string]func(http.ResponseWriter){
		"status":   func(w http.ResponseWriter) { w.WriteHeader(500) },
		"garbage":  body(`<html>`),
		"zone":     body(`{"muted":["*"],"quietHours":{"from":"22:00","to":"07:00","timezone":"Mars/Olympus"}}`),
		"time":     body(`{"muted":["*"],"quietHours":{"from":"25:00","to":"07:00"}}`),
		"huge":     body(`{"muted":["` + strings.Repeat("x", 1<<20) + `","*"]}`),
		"redirect": func(w http.ResponseWriter) { w.Header().Set("Location", "/users/muted"); w.WriteHeader(302) },
		"hangs":    func(http.ResponseWriter) { <-hang },
	} {
		app.says("/users/"+user, answer)
	}
	app.wants("muted", `{"muted":["*"]}`)
	g, _ := node(t, app.settings("HERALD_RECIPIENTS_TIMEOUT=2s")...)
	failed := 0.0
	for _, user := range []string{"status", "garbage", "zone", "time", "huge", "redirect", "hangs"} {
		s := connectAs(t, g, user)
		g.Publish(user, "1")
		s.expect(t, "notification")
		if failed++; g.Metric(`herald_recipients_total{decision="failed_open"}`) != failed {
			t.Errorf("%s was not counted", user)
		}
	}
	// One who fails costs the others nothing.
	wantAnswer(t, g, "/notify", `{"userIds":["status","muted","unknown"],"message":1}`,
		`{"ok":true,"results":[{"userId":"status","ok":true,"id":`)
	if n := g.Metric(`herald_recipients_total{decision="muted"}`); n != 1 {
		t.Errorf("%v muted", n)
	}
	unhang()
	app.Close()
	s := connectAs(t, g, "late")
	g.Publish("late", "1")
	s.expect(t, "notification")
	wantAnswer(t, g, "/notify", `{"userId":"muted","message":1}`, `{"ok":true,"skipped":"muted"}`) // still known
}
