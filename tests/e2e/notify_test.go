package e2e

import (
	"strings"
	"testing"
	"time"

	"herald/internal/testing/gatewaytest"
)

type results struct {
	OK      bool
	Results []struct {
		UserID string `json:"userId"`
		OK     bool
		ID     int64
		Nodes  int
		Error  string
	}
}

func TestNotify(t *testing.T) {
	a, b, _ := twoNodes(t)
	alice, bob := connectAs(t, b, "alice"), connectAs(t, a, "bob")
	before := time.Now().Add(-time.Minute).UnixMilli()

	r := a.Publish("alice", `{"n":1}`)
	if !r.OK || r.Nodes != 2 || r.ID < before || r.ID >= 1<<53 {
		t.Errorf("receipt %+v, want 2 nodes and an id in milliseconds", r)
	}
	if m := alice.expect(t, "notification"); m.ID != r.ID || string(m.Message) != `{"n":1}` || strings.Contains(m.raw, "kind") {
		t.Errorf("got %s", m.raw)
	}

	answer := b.Backend("POST", "/notify", `{"userIds":["alice","bob","nobody-here"],"message":2,"type":"many"}`)
	var many results
	answer.Decode(t, &many)
	if answer.Status != 200 || !many.OK || len(many.Results) != 3 {
		t.Fatalf("userIds: %d %s", answer.Status, answer.Body)
	}
	for i, user := range []string{"alice", "bob", "nobody-here"} {
		if got := many.Results[i]; got.UserID != user || got.ID == 0 {
			t.Errorf("result %d: %+v, want %s", i, got, user)
		}
	}
	for i, s := range []*socket{alice, bob} {
		if m := s.expect(t, "notification"); m.ID != many.Results[i].ID || string(m.Message) != "2" || m.Kind != "many" {
			t.Errorf("got %s", m.raw)
		}
	}

	r = a.PublishBody(`{"userId":"alice","message":3,"ephemeral":true}`)
	if m := alice.expect(t, "notification"); r.ID != 0 || strings.Contains(m.raw, `"id"`) {
		t.Errorf("ephemeral: receipt %+v, frame %s", r, m.raw)
	}

	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	a.Backend("POST", "/notify", `{"userId":"alice","message":4}`, "Traceparent: "+trace)
	if m := alice.expect(t, "notification"); m.TraceParent != trace {
		t.Errorf("traceparent: %s", m.raw)
	}
}

func TestBatch(t *testing.T) {
	g, _ := node(t)
	alice := connectAs(t, g, "alice")
	items := []string{
		`{"userId":"alice","message":1}`,
		`{"userId":"a:b","message":2}`,
		`{"userId":"alice","message":3,"colour":"red"}`,
		`{"userId":"alice"}`,
		`{"userId":"alice","message":` + text(64<<10+1) + `}`,
		`{"userId":"alice","message":` + nested(33) + `}`,
		`7`,
		`{"userId":"alice","message":4,"ephemeral":true}`,
		`{"userId":"alice","message":5}`,
	}
	good := map[int]string{0: "1", 7: "4", 8: "5"}
	answer := g.Backend("POST", "/notify/batch", `{"notifications":[`+strings.Join(items, ",")+`]}`)
	var r results
	if answer.Decode(t, &r); answer.Status != 200 || len(r.Results) != len(items) {
		t.Fatalf("%d %s", answer.Status, answer.Body)
	}
	for i, got := range r.Results {
		if _, ok := good[i]; got.OK != ok || (got.Error == "") != ok {
			t.Errorf("result %d: %+v", i, got)
		}
	}
	for _, i := range []int{0, 7, 8} {
		if m := alice.expect(t, "notification"); string(m.Message) != good[i] || m.ID != r.Results[i].ID {
			t.Errorf("item %d: %s", i, m.raw)
		}
	}
	if got := alice.alive(t); len(got) > 0 {
		t.Errorf("too much: %s", rawOf(got))
	}

	for name, body := range map[string]string{
		"no items":      `{"notifications":[]}`,
		"1001 items":    `{"notifications":[` + strings.Repeat(items[0]+",", 1000) + items[0] + `]}`,
		"no list":       `{}`,
		"not a list":    `{"notifications":{}}`,
		"other field":   `{"notifications":[` + items[0] + `],"atomic":true}`,
		"list twice":    `{"notifications":[` + items[0] + `],"notifications":[` + items[0] + `]}`,
		"a bare list":   `[` + items[0] + `]`,
		"broken JSON":   `{"notifications":[` + items[0] + `,{]}`,
		"invalid UTF-8": "{\"notifications\":[{\"userId\":\"alice\",\"message\":\"\xff\"}]}",
	} {
		t.Run(name, func(t *testing.T) { checkProblem(t, g.For(t).Backend("POST", "/notify/batch", body), 400) })
	}
	if a := g.Backend("POST", "/notify/batch", `{"notifications":[`+strings.Repeat(items[7]+",", 999)+items[7]+`]}`); a.Status != 200 {
		t.Errorf("1000 items: %d %.300s", a.Status, a.Body)
	}
}

func TestIdempotencyKeys(t *testing.T) {
	a, b, _ := twoNodes(t, "HERALD_API_KEYS=backend:"+gatewaytest.Key+",second:0123456789abcdef-second")
	alice := connectAs(t, a, "alice")
	const body = `{"userId":"alice","message":1}`
	first := a.Backend("POST", "/notify", body, `Idempotency-Key: "k-1"`)
	if first.Status != 200 || first.Header.Get("Idempotency-Replay") != "" {
		t.Fatalf("first: %d %v", first.Status, first.Header)
	}
	alice.expect(t, "notification")
	for name, again := range map[string]gatewaytest.Answer{
		"same node":     a.Backend("POST", "/notify", body, `Idempotency-Key: "k-1"`),
		"other node":    b.Backend("POST", "/notify", body, `Idempotency-Key: "k-1"`),
		"without quote": b.Backend("POST", "/notify", body, `Idempotency-Key: k-1`),
	} {
		if again.Status != 200 || again.Body != first.Body || again.Header.Get("Idempotency-Replay") != "true" {
			t.Errorf("%s: %d %s, replay %q; want %s again", name, again.Status, again.Body, again.Header.Get("Idempotency-Replay"), first.Body)
		}
	}
	if got := alice.alive(t); len(got) > 0 {
		t.Errorf("delivered twice: %s", rawOf(got))
	}
	checkProblem(t, b.Backend("POST", "/notify", `{"userId":"alice","message":2}`, `Idempotency-Key: "k-1"`), 422)
	for name, header := range map[string][]string{
		"another key":     {`Idempotency-Key: "k-2"`, gatewaytest.BearerKey},
		"another backend": {`Idempotency-Key: "k-1"`, "Authorization: Bearer 0123456789abcdef-second"},
	} {
		if r := b.Do("POST", "/notify", body, header...); r.Status != 200 || r.Body == first.Body {
			t.Errorf("%s: %d %s", name, r.Status, r.Body)
		}
		alice.expect(t, "notification")
	}
	for name, key := range map[string]string{"256 bytes": strings.Repeat("k", 256), "nothing": `""`} {
		t.Run(name, func(t *testing.T) {
			checkProblem(t, a.For(t).Backend("POST", "/notify", body, "Idempotency-Key: "+key), 400)
		})
	}
	if r := a.Backend("POST", "/notify", body, "Idempotency-Key: "+strings.Repeat("k", 255)); r.Status != 200 {
		t.Errorf("255 bytes: %d %s", r.Status, r.Body)
	}
}

// TestOneIdempotencyKeyAtOnce sends one request many times at the same time: one
// is delivered, the others are that answer again or 409.
func TestOneIdempotencyKeyAtOnce(t *testing.T) {
	a, b, _ := twoNodes(t)
	alice := connectAs(t, a, "alice")
	const attempts = 32
	answers := make(chan gatewaytest.Answer, attempts)
	for i := range attempts {
		go func() {
			r, err := []*gatewaytest.Gateway{a, b}[i%2].Try("POST", "/notify", `{"userId":"alice","message":1}`,
				gatewaytest.BearerKey, `Idempotency-Key: "at once"`)
			if err != nil {
				t.Error(err)
			}
			answers <- r
		}()
	}
	bodies, first := map[string]bool{}, 0
	for range attempts {
		switch r := <-answers; {
		case r.Status == 200:
			bodies[r.Body] = true
			if r.Header.Get("Idempotency-Replay") == "" {
				first++
			}
		case r.Status == 409 && r.Header.Get("Retry-After") == "1":
		default:
			t.Errorf("%d %s", r.Status, r.Body)
		}
	}
	if len(bodies) != 1 || first != 1 {
		t.Errorf("%d different answers, %d of them first", len(bodies), first)
	}
	alice.expect(t, "notification")
	if got := alice.alive(t); len(got) > 0 {
		t.Errorf("delivered again: %s", rawOf(got))
	}
}
