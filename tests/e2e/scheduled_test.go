package e2e

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"herald/internal/testing/gatewaytest"
)

// scheduledAnswer is the answer to a publish for later.
type scheduledAnswer struct {
	OK        bool
	Scheduled string
	DeliverAt time.Time `json:"deliverAt"`
	UserID    string    `json:"userId"`
	ID        int64
	Error     string
	Results   []scheduledAnswer
}

// schedulePage is the answer of GET /users/<id>/scheduled.
type schedulePage struct {
	UserID    string `json:"userId"`
	Scheduled []struct {
		ID        string
		DeliverAt time.Time `json:"deliverAt"`
		Type      string
		TTL       int
		Ephemeral bool
		Message   json.RawMessage
	}
	Next *string
}

func later(t testing.TB, g *gatewaytest.Gateway, path, body string, header ...string) (a scheduledAnswer) {
	t.Helper()
	answer := g.Backend("POST", path, body, header...)
	if answer.Status != 200 {
		t.Fatalf("POST %s: %d %s", path, answer.Status, answer.Body)
	}
	answer.Decode(t, &a)
	return a
}

func scheduledOf(t testing.TB, g *gatewaytest.Gateway, user, query string) (p schedulePage) {
	t.Helper()
	g.Backend("GET", "/users/"+user+"/scheduled"+query, "").Decode(t, &p)
	return p
}

// A notification scheduled through one node arrives through the other, when it is due and
// byte for byte.
func TestScheduled(t *testing.T) {
	a, b, r := twoNodes(t)
	alice := connectAs(t, b, "alice")
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	redisNow := func() time.Time { t.Helper(); return r.Client().Time(t.Context()).Val() }

	before := redisNow()
	first := later(t, a, "/notify", `{"userId":"alice","message": { "n" :1} ,"type":"k","ttl":3600,"delay":2}`, "Traceparent: "+trace)
	if d := first.DeliverAt.Sub(before); !first.OK || first.Scheduled == "" || first.ID != 0 || d < 1900*time.Millisecond || d > 10*time.Second {
		t.Errorf("answer %+v, due in %v", first, d)
	}
	at := redisNow().Add(time.Second).Truncate(time.Millisecond)
	second := later(t, b, "/notify", `{"userId":"alice","message":2,"deliverAt":"`+at.Format(time.RFC3339Nano)+`","ephemeral":true}`)
	if !second.DeliverAt.Equal(at) {
		t.Errorf("due at %v, want %v", second.DeliverAt, at)
	}
	page := scheduledOf(t, b, "alice", "")
	if len(page.Scheduled) != 2 || page.Next != nil || page.UserID != "alice" {
		t.Fatalf("listed %+v", page)
	}
	if got := page.Scheduled[0]; got.ID != second.Scheduled || !got.Ephemeral || string(got.Message) != "2" {
		t.Errorf("listed first: %+v", got)
	}
	if got := page.Scheduled[1]; got.ID != first.Scheduled || got.Type != "k" || got.TTL != 3600 || string(got.Message) != `{ "n" :1}` {
		t.Errorf("listed second: %+v", got)
	}

	if m := alice.expect(t, "notification"); m.ID != 0 || string(m.Message) != "2" {
		t.Errorf("got %s", m.raw)
	}
	m := alice.expect(t, "notification")
	if string(m.Message) != `{ "n" :1}` || m.Kind != "k" || m.TraceParent != trace || m.ID < first.DeliverAt.UnixMilli() {
		t.Errorf("got %s, due at %d", m.raw, first.DeliverAt.UnixMilli())
	}
	// The ttl counts from the delivery.
	expires := r.Client().XRange(t.Context(), "user:{alice}:log", "-", "+").Val()[0].Values["x"]
	if expires != fmt.Sprint(m.ID+3_600_000) {
		t.Errorf("expires at %v, delivered at %d", expires, m.ID)
	}
	if page := scheduledOf(t, a, "alice", ""); len(page.Scheduled) != 0 {
		t.Errorf("still listed: %+v", page)
	}
	past := later(t, a, "/notify", `{"userId":"alice","message":3,"deliverAt":"2001-01-01T00:00:00Z"}`)
	if past.DeliverAt.Before(before) {
		t.Errorf("a time that has passed: %+v", past)
	}
	if m := alice.expect(t, "notification"); string(m.Message) != "3" {
		t.Errorf("got %s", m.raw)
	}
	eventually(t, "both nodes' counts", func() bool {
		return a.Metric("herald_scheduled_delivered_total")+b.Metric("herald_scheduled_delivered_total") == 3 &&
			a.Metric("herald_scheduled_late_seconds_count")+b.Metric("herald_scheduled_late_seconds_count") == 3
	})
}

func TestCancelScheduled(t *testing.T) {
	a, b, _ := twoNodes(t)
	alice := connectAs(t, a, "alice@example.com")
	x := later(t, a, "/notify", `{"userId":"alice@example.com","message":"x","delay":1}`)
	y := later(t, a, "/notify", `{"userId":"alice@example.com","message":"y","delay":2}`)
	if answer := b.Backend("DELETE", "/scheduled/"+url.PathEscape(x.Scheduled), ""); answer.Status != 200 || answer.Body != `{"cancelled":1}` {
		t.Errorf("cancel: %d %s", answer.Status, answer.Body)
	}
	checkProblem(t, a.Backend("DELETE", "/scheduled/"+x.Scheduled, ""), 404)
	if m := alice.expect(t, "notification"); string(m.Message) != `"y"` {
		t.Errorf("got %s", m.raw)
	}
	checkProblem(t, a.Backend("DELETE", "/scheduled/"+y.Scheduled, ""), 404)
	checkProblem(t, a.Backend("DELETE", "/scheduled/nonsense", ""), 404)
	checkProblem(t, a.Do("DELETE", "/scheduled/"+x.Scheduled, ""), 401)
	if m := a.Metric("herald_scheduled_cancelled_total") + b.Metric("herald_scheduled_cancelled_total"); m != 1 {
		t.Errorf("%v cancelled", m)
	}
}

func TestListScheduled(t *testing.T) {
	g, _ := node(t)
	var items []string
	for i := range 60 {
		items = append(items, fmt.Sprintf(`{"userId":"alice","message":%d,"delay":%d}`, i, 1000-i))
	}
	later(t, g, "/notify/batch", `{"notifications":[`+strings.Join(items, ",")+`]}`)
	first := scheduledOf(t, g, "alice", "")
	if len(first.Scheduled) != 50 || first.Next == nil || *first.Next != first.Scheduled[49].ID {
		t.Fatalf("first page: %d, next %v", len(first.Scheduled), first.Next)
	}
	rest := scheduledOf(t, g, "alice", "?limit=100&after="+*first.Next)
	if len(rest.Scheduled) != 10 || rest.Next != nil || string(rest.Scheduled[9].Message) != "0" {
		t.Errorf("second page: %+v", rest)
	}
	for _, query := range []string{"?limit=0", "?limit=101", "?after=x", "?after=" + strings.Replace(*first.Next, "alice", "bob", 1)} {
		checkProblem(t, g.Backend("GET", "/users/alice/scheduled"+query, ""), 400)
	}
	checkProblem(t, g.Backend("GET", "/users/a:b/scheduled", ""), 400)
	checkProblem(t, g.Do("GET", "/users/alice/scheduled", ""), 401)
}

func TestScheduleRefusals(t *testing.T) {
	g, r := node(t, "HERALD_API_KEYS=backend:"+gatewaytest.Key+",other:0123456789abcdef-other:presence", "HERALD_PUBLISH_LIMIT=2000/1m")
	for body, detail := range map[string]string{
		`"delay":1,"deliverAt":"2026-01-01T00:00:00Z"`: "delay must not stand beside deliverAt",
		`"delay":0`:                          "delay must be",
		`"deliverAt":"tomorrow"`:             "deliverAt must be",
		`"deliverAt":"9999-01-01T00:00:00Z"`: "deliverAt must be at most 366 days ahead",
	} {
		answer := g.Backend("POST", "/notify", `{"userId":"alice","message":1,`+body+`}`)
		if checkProblem(t, answer, 400); !strings.Contains(answer.Body, detail) {
			t.Errorf("%s: %s", body, answer.Body)
		}
	}
	one := `{"userId":"alice","message":1,"delay":1000}`
	checkProblem(t, g.Do("POST", "/notify", one, "Authorization: Bearer 0123456789abcdef-other"), 403)
	g.Backend("POST", "/notify/batch", `{"notifications":[`+strings.Repeat(one+",", 998)+one+`]}`)
	answer := g.Backend("POST", "/notify/batch", `{"notifications":[{"userId":"bob","message":1},`+one+","+one+`]}`)
	if checkProblem(t, answer, 409); !strings.Contains(answer.Body, `"schedule_full"`) {
		t.Errorf("full: %s", answer.Body)
	}
	if n := r.Client().Exists(t.Context(), "user:{bob}:log").Val(); n != 0 {
		t.Error("half of a batch was published")
	}
	if left := g.Backend("POST", "/notify", one).Header.Get("X-RateLimit-Remaining"); left != "997" {
		t.Errorf("%s are left of the limit, want 997: scheduling costs when it is scheduled", left)
	}
	r.Stop()
	checkProblem(t, g.Backend("POST", "/notify", one), 503)
	checkProblem(t, g.Backend("GET", "/users/alice/scheduled", ""), 503)
	r.Continue()
}

// A batch may mix immediate and scheduled notifications.
func TestScheduledBatch(t *testing.T) {
	g, _ := node(t)
	alice, bob := connectAs(t, g, "alice"), connectAs(t, g, "bob")
	const body = `{"notifications":[
		{"userId":"alice","message":"later","delay":2},
		{"userId":"alice","message":"now"},
		{"userId":"bob","message":1,"deliverAt":"9999-01-01T00:00:00Z"},
		{"userId":"bob","message":1,"colour":"red"},
		{"userIds":["alice","bob"],"message":"both","delay":1}]}`
	const key = "Idempotency-Key: mixed"
	a := later(t, g, "/notify/batch", body, key)
	r := a.Results
	if len(r) != 5 || r[0].Scheduled == "" || r[0].ID != 0 || r[1].ID == 0 || r[1].Scheduled != "" || r[2].OK || r[3].OK ||
		!strings.Contains(r[2].Error, "notifications[2].deliverAt") || len(r[4].Results) != 2 || r[4].Results[1].UserID != "bob" || r[4].Results[1].Scheduled == "" {
		t.Errorf("answer %+v", a)
	}
	again := g.Backend("POST", "/notify/batch", body, key)
	var same scheduledAnswer
	if again.Decode(t, &same); again.Header.Get("Idempotency-Replay") != "true" || fmt.Sprint(same) != fmt.Sprint(a) {
		t.Errorf("again: %s", again.Body)
	}
	for _, want := range []string{`"now"`, `"both"`, `"later"`} {
		if m := alice.expect(t, "notification"); string(m.Message) != want {
			t.Errorf("got %s, want %s", m.raw, want)
		}
	}
	bob.expect(t, "notification")
	if extra := append(alice.alive(t), bob.alive(t)...); len(extra) > 0 {
		t.Errorf("too much: %s", rawOf(extra))
	}
}

// Where the part of a batch that is for now cannot be stored, the part for later
// is taken back, unless a repetition with the same key would go on from there.
func TestHalfABatchIsTakenBack(t *testing.T) {
	g, r := node(t)
	log := "user:{bad}:log"
	if err := r.Client().Set(t.Context(), log, "not a stream", 0).Err(); err != nil {
		t.Fatal(err)
	}
	const body, key = `{"notifications":[{"userId":"bad","message":1},{"userId":"alice","message":2,"delay":1000}]}`, "Idempotency-Key: half"
	checkProblem(t, g.Backend("POST", "/notify/batch", body), 503)
	if p := scheduledOf(t, g, "alice", ""); len(p.Scheduled) != 0 {
		t.Errorf("left: %+v", p)
	}
	checkProblem(t, g.Backend("POST", "/notify/batch", body, key), 503)
	if p := scheduledOf(t, g, "alice", ""); len(p.Scheduled) != 1 {
		t.Errorf("with a key: %+v", p)
	}
	if err := r.Client().Del(t.Context(), log).Err(); err != nil {
		t.Fatal(err)
	}
	later(t, g, "/notify/batch", body, key)
	if p := scheduledOf(t, g, "alice", ""); len(p.Scheduled) != 1 {
		t.Errorf("repeated: %+v", p)
	}
	if n := r.Client().XLen(t.Context(), log).Val(); n != 1 {
		t.Errorf("%d published", n)
	}
}

// Retries of a scheduled publish, at once and through both nodes, schedule once.
func TestScheduledOnce(t *testing.T) {
	a, b, _ := twoNodes(t)
	const body, key = `{"userIds":["alice","bob"],"message":1,"delay":1000}`, `Idempotency-Key: "s-1"`
	retryAtOnce(t, a, b, "/notify", body, key)
	for _, user := range []string{"alice", "bob"} {
		if p := scheduledOf(t, a, user, ""); len(p.Scheduled) != 1 {
			t.Errorf("%s has %d scheduled", user, len(p.Scheduled))
		}
	}
	// A key belongs to one request, whatever kind of publish it is.
	checkProblem(t, a.Backend("POST", "/notify", `{"userId":"alice","message":1}`, key), 422)
	checkProblem(t, a.Backend("POST", "/notify", `{"userId":"alice","message":1,"delay":5}`, key), 422)
	a.Backend("POST", "/notify", `{"userId":"alice","message":1}`, "Idempotency-Key: now")
	checkProblem(t, a.Backend("POST", "/notify", `{"userId":"alice","message":1,"delay":5}`, "Idempotency-Key: now"), 422)
}
