package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"herald/internal/testing/gatewaytest"
)

// eventStream reads server-sent events as WHATWG HTML, 9.2.6 says.
type eventStream struct {
	resp     *http.Response
	lines    *bufio.Scanner
	comments int
	retry    string
}

// event is one dispatched event.
type event struct {
	name, data string
	id         string // the last event id, which an EventSource resumes from
}

// subscribe opens GET /events, which is ended with the test.
func subscribe(t *testing.T, g *gatewaytest.Gateway, path string, header ...string) *eventStream {
	t.Helper()
	req, err := http.NewRequest("GET", g.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		req.Header.Add(name, value)
	}
	transport := &http.Transport{}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close(); transport.CloseIdleConnections() })
	if resp.StatusCode != 200 {
		body, _ := io.ReadAll(resp.Body)
		t.Fatalf("GET %s: %d %s", path, resp.StatusCode, body)
	}
	s := &eventStream{resp: resp, lines: bufio.NewScanner(resp.Body)}
	s.lines.Buffer(nil, 1<<20)
	// A server that falls silent must not hang the test.
	watchdog := time.AfterFunc(2*patience, func() { _ = resp.Body.Close() })
	t.Cleanup(func() { watchdog.Stop() })
	return s
}

// next waits for the next event; io.EOF at the stream's end.
func (s *eventStream) next() (e event, err error) {
	var data []string
	for s.lines.Scan() {
		line := s.lines.Text()
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "" && len(data) > 0:
			e.data = strings.Join(data, "\n")
			return e, nil
		case line == "":
		case name == "":
			s.comments++
		case name == "data":
			data = append(data, value)
		case name == "event":
			e.name = value
		case name == "id":
			e.id = value
		case name == "retry":
			s.retry = value
		}
	}
	return e, errors.Join(io.EOF, s.lines.Err())
}

// expect waits for the next event, which must have one of the names.
func (s *eventStream) expect(t *testing.T, names ...string) (message, event) {
	t.Helper()
	e, err := s.next()
	if err != nil {
		t.Fatalf("waiting for event %v: %v", names, err)
	}
	m := message{raw: e.data}
	if err := json.Unmarshal([]byte(e.data), &m); err != nil {
		t.Fatalf("event %+v: %v", e, err)
	}
	if !slices.Contains(names, e.name) || m.Type != e.name {
		t.Fatalf("got event %+v, want %v", e, names)
	}
	return m, e
}

func (s *eventStream) expectEnd(t *testing.T) {
	t.Helper()
	if e, err := s.next(); err == nil {
		t.Fatalf("after bye came %+v", e)
	}
}

func TestEventStream(t *testing.T) {
	a, b, _ := twoNodes(t)
	s := subscribe(t, b, "/events", bearer("alice"))
	for name, want := range map[string]string{
		"Content-Type": "text/event-stream", "X-Accel-Buffering": "no", "Cache-Control": "no-store", "Content-Encoding": "",
	} {
		if got := s.resp.Header.Get(name); !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if hello, e := s.expect(t, "hello"); hello.UserID != "alice" || hello.Ping != 25 || e.id != "" && e.id != "0" {
		t.Errorf("hello %+v", e)
	}
	id := a.PublishBody(`{"userId":"alice","type":"k","message":{ "a":"\u0041\nb" ,"n":1e400}}`).ID
	if m, e := s.expect(t, "notification"); m.ID != id || e.id != itoa(id) || m.Kind != "k" || string(m.Message) != `{ "a":"\u0041\nb" ,"n":1e400}` {
		t.Errorf("got %+v, want id %d", e, id)
	}
	last := a.Publish("alice", "{\n\"lines\": [1,\r\n2,\r3]\n}").ID
	if m, _ := s.expect(t, "notification"); m.ID != last || strings.Join(strings.Fields(string(m.Message)), "") != `{"lines":[1,2,3]}` {
		t.Errorf("got %s", m.raw)
	}
	a.PublishBody(`{"userId":"alice","message":"e","ephemeral":true}`)
	if m, e := s.expect(t, "notification"); m.ID != 0 || e.id != "" {
		t.Errorf("ephemeral: %+v", e)
	}

	for name, resumed := range map[string]*eventStream{
		"Last-Event-ID": subscribe(t, a, "/events", bearer("alice"), "Last-Event-ID: "+itoa(id)),
		"lastEventId":   subscribe(t, a, "/events?lastEventId="+itoa(id), bearer("alice")),
		"since":         subscribe(t, a, "/events?since="+itoa(id)+"&token="+gatewaytest.UserToken("alice")),
	} {
		resumed.expect(t, "hello")
		// This node may have received the ephemeral one between join and hello, and then
		// sends the read state again.
		m, _ := resumed.expect(t, "notification", "read")
		if m.Type == "read" {
			m, _ = resumed.expect(t, "notification")
		}
		if m.ID != last {
			t.Errorf("%s: resumed with %s, want %d", name, m.raw, last)
		}
	}
	future := subscribe(t, a, "/events", bearer("alice"), "Last-Event-ID: "+itoa(last+1_000_000))
	future.expect(t, "hello")
	future.expect(t, "gap")
}

func TestWhoMaySubscribe(t *testing.T) {
	g, _ := node(t)
	session := g.CreateSession("alice")
	for _, row := range []struct {
		name   string
		path   string
		header []string
		want   int
	}{
		{"nothing", "/events", nil, 401},
		{"a WebSocket's subprotocol", "/events", []string{"Sec-WebSocket-Protocol: herald.v1, bearer." + gatewaytest.UserToken("alice")}, 401},
		{"cookie, no Origin", "/events", []string{session.Cookie()}, 403},
		{"cookie, foreign Origin", "/events", []string{session.Cookie(), "Origin: https://evil.example"}, 403},
		{"cookie, foreign Origin called same", "/events", []string{session.Cookie(), "Origin: https://evil.example", "Sec-Fetch-Site: same-origin"}, 403},
		{"cookie, same site only", "/events", []string{session.Cookie(), "Sec-Fetch-Site: same-site"}, 403},
		{"cookie, cross site", "/events", []string{session.Cookie(), "Sec-Fetch-Site: cross-site"}, 403},
		{"cookie, address bar", "/events", []string{session.Cookie(), "Sec-Fetch-Site: none"}, 403},
		{"two Origins", "/events", []string{session.Cookie(), g.Origin(), g.Origin()}, 400},
		{"two users", "/events?token=" + gatewaytest.UserToken("bob"), []string{session.Cookie(), g.Origin()}, 400},
		{"bad since", "/events?since=x", []string{bearer("alice")}, 400},
		{"bad Last-Event-ID", "/events", []string{bearer("alice"), "Last-Event-ID: -1"}, 400},
	} {
		t.Run(row.name, func(t *testing.T) {
			checkProblem(t, g.For(t).Do("GET", row.path, "", row.header...), row.want)
		})
	}
	subscribe(t, g, "/events", session.Cookie(), "Sec-Fetch-Site: same-origin").expect(t, "hello")
	subscribe(t, g, "/events", session.Cookie(), g.Origin()).expect(t, "hello")
}

func TestEventStreamsEnd(t *testing.T) {
	t.Parallel()
	g, _ := node(t, "HERALD_PING=1s", "HERALD_MAX_CONNECTIONS_PER_USER=2")
	session := g.CreateSession("alice")
	revoked := subscribe(t, g, "/events", session.Cookie(), g.Origin())
	revoked.expect(t, "hello")
	g.Backend("DELETE", "/users/alice/sessions", "")
	if bye, _ := revoked.expect(t, "bye"); bye.Code != 4002 {
		t.Errorf("revoked: %s", bye.raw)
	}
	revoked.expectEnd(t)

	token, exp := expiring("alice", 3)
	expires := subscribe(t, g, "/events", "Authorization: Bearer "+token)
	expires.expect(t, "hello")
	if bye, _ := expires.expect(t, "bye"); bye.Code != 4001 || time.Since(exp) > 3*time.Second {
		t.Errorf("%v after exp: %s", time.Since(exp), bye.raw)
	}
	if expires.comments == 0 {
		t.Error("no comment in about 3 s, with a ping each second")
	}
	expires.expectEnd(t)

	gone := subscribe(t, g, "/events", bearer("gone"))
	gone.expect(t, "hello")
	_ = gone.resp.Body.Close()
	eventually(t, "a client that left is noticed", func() bool { return g.Metric("herald_connections") == 0 })

	drained := subscribe(t, g, "/events", bearer("bob"))
	drained.expect(t, "hello")
	subscribe(t, g, "/events", bearer("bob")).expect(t, "hello")
	third := subscribe(t, g, "/events", bearer("bob"))
	if bye, _ := third.expect(t, "bye"); bye.Code != 4004 {
		t.Errorf("a third connection: %s", bye.raw)
	}
	third.expectEnd(t)
	g.Terminate()
	bye, _ := drained.expect(t, "bye")
	drained.expectEnd(t)
	if bye.Code != 4101 || drained.retry != strconv.Itoa(bye.RetryAfterMs) {
		t.Errorf("drained: %s, retry %q", bye.raw, drained.retry)
	}
	if code := g.Wait(); code != 0 {
		t.Errorf("exit code %d:\n%s", code, g.Log())
	}
}

func TestPresence(t *testing.T) {
	a, b, r := twoNodes(t, "HERALD_API_KEYS=backend:"+gatewaytest.Key+",publisher:0123456789abcdef-publish:publish")
	await := func(g *gatewaytest.Gateway, want string) {
		t.Helper()
		var got string
		eventually(t, want, func() bool {
			answer := g.Backend("GET", "/users/alice/presence", "")
			got = answer.Body
			return answer.Status == 200 && strings.Contains(got, want[1:len(want)-1])
		})
	}
	await(a, `{"online":false,"connections":0,"nodes":0}`)
	one, two := connectAs(t, a, "alice"), connectAs(t, a, "alice")
	events := subscribe(t, b, "/events", bearer("alice"))
	events.expect(t, "hello")
	connectAs(t, b, "bob")
	for _, g := range []*gatewaytest.Gateway{a, b} {
		await(g, `{"online":true,"connections":3,"nodes":2}`)
	}
	_ = one.conn.Close()
	await(b, `{"online":true,"connections":2,"nodes":2}`)
	crash(two)
	await(b, `{"online":true,"connections":1,"nodes":1}`)
	_ = events.resp.Body.Close()
	await(a, `{"online":false,"connections":0,"nodes":0}`)

	checkProblem(t, a.Backend("GET", "/users/a:b/presence", ""), 400)
	checkProblem(t, a.Do("GET", "/users/alice/presence", ""), 401)
	checkProblem(t, a.Do("GET", "/users/alice/presence", "", "Authorization: Bearer 0123456789abcdef-publish"), 403)
	r.Stop()
	checkProblem(t, a.Backend("GET", "/users/alice/presence", ""), 503)
	r.Continue()
}
