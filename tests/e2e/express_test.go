package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"herald/internal/testing/childtest"
	"herald/internal/testing/gatewaytest"
	"herald/internal/testing/redistest"
)

// expressApp is one process of node/express.mjs.
type expressApp struct {
	t   *testing.T
	url string
}

// cookieSecret signs the app's cookie.
const cookieSecret = "keyboard cat"

func startExpress(t *testing.T, r *redistest.Server, secrets ...string) *expressApp {
	t.Helper()
	installNode(t)
	cmd := exec.Command("node", append([]string{"node/express.mjs", r.URL()}, secrets...)...)
	in, lines := childtest.Start(t, cmd)
	t.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("Express app: %v", err)
		}
	})
	var told struct{ Port int }
	if !lines.Scan() || json.Unmarshal(lines.Bytes(), &told) != nil {
		t.Fatalf("the Express app does not listen: %s, %v", lines.Bytes(), lines.Err())
	}
	return &expressApp{t, "http://127.0.0.1:" + strconv.Itoa(told.Port)}
}

// do sends a request with the cookie and returns the answer's body and the cookie that it
// sets.
func (a *expressApp) do(method, path, cookie string) (body, setCookie string) {
	a.t.Helper()
	req, err := http.NewRequestWithContext(a.t.Context(), method, a.url+path, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	if cookie != "" {
		req.Header.Set("Cookie", strings.TrimPrefix(cookie, "Cookie: "))
	}
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= 300 {
		a.t.Fatalf("%s %s of the Express app: %s %s, %v", method, path, resp.Status, b, err)
	}
	setCookie, _, _ = strings.Cut(resp.Header.Get("Set-Cookie"), ";")
	return string(b), setCookie
}

// logIn returns the header line with the cookie that the app sets.
func (a *expressApp) logIn(user string) string {
	a.t.Helper()
	_, cookie := a.do("POST", "/login?user="+user, "")
	if !strings.HasPrefix(cookie, "connect.sid=s%3A") {
		a.t.Fatalf("the Express app sets %q", cookie)
	}
	return "Cookie: " + cookie
}

// connect opens a socket as one of the app's pages does.
func (a *expressApp) connect(t *testing.T, g *gatewaytest.Gateway, cookie string) *socket {
	t.Helper()
	s, _ := connect(t, g, dialOptions{header: []string{cookie, "Origin: " + a.url}})
	return s
}

// gateway starts a node that accepts the app's sessions.
func (a *expressApp) gateway(r *redistest.Server, settings ...string) *gatewaytest.Gateway {
	a.t.Helper()
	return gatewaytest.Start(a.t, gatewaytest.Settings(r.URL(), append([]string{
		"HERALD_SESSION_FORMAT=express", "HERALD_SESSION_SECRETS=" + cookieSecret, "HERALD_ALLOWED_ORIGINS=" + a.url,
	}, settings...)...)...)
}

// TestExpressSessions logs in at the app, receives here, logs out at the app, and sees the
// connection close. With keyspace notifications the next check is too far away to have
// closed it.
func TestExpressSessions(t *testing.T) {
	for name, c := range map[string]struct {
		redis   []string
		setting string
		within  time.Duration // 0: the next check
	}{
		"notified":     {[]string{"--notify-keyspace-events", "Kgx$"}, "HERALD_SESSION_CHECK=30s", 10 * time.Second},
		"not notified": {nil, "HERALD_SESSION_CHECK=1s", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := redistest.Start(t, c.redis...)
			app := startExpress(t, r, cookieSecret)
			g := app.gateway(r, c.setting)
			cookie, other := app.logIn("alice"), app.logIn("bob")
			alice, tab, bob := app.connect(t, g, cookie), app.connect(t, g, cookie), app.connect(t, g, other)
			g.Publish("alice", `{"text":"hello"}`)
			alice.expect(t, "notification")
			tab.expect(t, "notification")

			began := time.Now()
			app.do("POST", "/logout", cookie)
			alice.expectClose(t, 4002)
			tab.expectClose(t, 4002)
			if took := time.Since(began); c.within > 0 && took > c.within {
				t.Errorf("closed after %v", took)
			}
			tryConnect(t, g, "/ws", append([]string{cookie, "Origin: " + app.url}, upgrading...), 401)
			if got := bob.alive(t); len(got) > 0 {
				t.Errorf("bob got %s", rawOf(got))
			}
			app.do("POST", "/forget", other) // the key stays
			bob.expectClose(t, 4002)
			if took := time.Since(began); c.within > 0 && took > 2*c.within {
				t.Errorf("closed after %v", took)
			}
			wantNoSessionInLog(t, g, cookie)
		})
	}
}

// wantNoSessionInLog checks that neither the session's id nor its cookie is logged.
func wantNoSessionInLog(t *testing.T, g *gatewaytest.Gateway, cookie string) {
	t.Helper()
	_, id, _ := strings.Cut(cookie, "s%3A")
	id, _, _ = strings.Cut(id, ".")
	if len(id) < 16 || strings.Contains(g.Log(), id) {
		t.Errorf("the log shows the session %q", id)
	}
}

// TestExpressSessionIsTheApps: the gateway only reads the app's sessions, and answers 409
// to requests that would change one.
func TestExpressSessionIsTheApps(t *testing.T) {
	r := redistest.Start(t)
	app := startExpress(t, r, "a new secret", cookieSecret)
	g := app.gateway(r, "HERALD_SESSION_SECRETS=a new secret,"+cookieSecret)
	old := startExpress(t, r, cookieSecret) // before the secret was changed
	for _, cookie := range []string{app.logIn("alice"), old.logIn("alice")} {
		a := g.Do("GET", "/sessions/current", "", cookie)
		var shown struct {
			Handle, UserID string
			ExpiresAt      time.Time
		}
		if a.Decode(t, &shown); a.Status != 200 || shown.UserID != "alice" || !isHex(shown.Handle, 64) {
			t.Errorf("current: %d %s", a.Status, a.Body)
		}
		if life := time.Until(shown.ExpiresAt); life > time.Hour+time.Minute || life < 50*time.Minute {
			t.Errorf("it expires in %v, want an hour", life)
		}
		tampered := strings.Replace(cookie, "s%3A", "s%3Ax", 1)
		checkProblem(t, g.Do("GET", "/sessions/current", "", tampered), 401)
		checkForeign(t, g.Do("DELETE", "/sessions/current", "", cookie, "Origin: "+app.url))
	}
	foreign := startExpress(t, r, "somebody else's secret")
	checkProblem(t, g.Do("GET", "/sessions/current", "", foreign.logIn("alice")), 401)

	handle := strings.Repeat("0", 64)
	checkForeign(t, g.Backend("POST", "/sessions", `{"userId":"alice"}`))
	checkForeign(t, g.Backend("PATCH", "/sessions/"+handle, `{"data":{"a":1}}`))
	checkForeign(t, g.Backend("DELETE", "/sessions/"+handle, ""))
	checkForeign(t, g.Backend("GET", "/users/alice/sessions", ""))
	checkForeign(t, g.Backend("DELETE", "/users/alice/sessions", ""))
	checkProblem(t, g.Do("POST", "/sessions", `{"userId":"alice"}`), 401)
}

func checkForeign(t *testing.T, a gatewaytest.Answer) {
	t.Helper()
	checkProblem(t, a, http.StatusConflict)
	if !strings.Contains(a.Body, `"error":"foreign_sessions"`) {
		t.Errorf("got %s", a.Body)
	}
}

// TestJSONSessions: each use extends a session written by SETEX, until it expires.
func TestJSONSessions(t *testing.T) {
	const id = "0f8fad5b-d9cb-469f-a165-70867728950e"
	g, r := node(t, "HERALD_SESSION_FORMAT=json", "HERALD_SESSION_COOKIE=sessionId",
		"HERALD_SESSION_SLIDE=on", "HERALD_SESSION_TTL=1h", "HERALD_SESSION_CHECK=1s")
	rdb := r.Client()
	if err := rdb.Do(t.Context(), "SETEX", "session:"+id, 60, `{"userId":42,"cart":[]}`).Err(); err != nil {
		t.Fatal(err)
	}
	cookie := "Cookie: sessionId=" + id
	s, hello := connect(t, g, dialOptions{header: []string{cookie, g.Origin()}})
	if !strings.Contains(hello.raw, `"userId":"42"`) {
		t.Errorf("hello: %s", hello.raw)
	}
	g.Publish("42", `{"text":"hello"}`)
	s.expect(t, "notification")
	if ttl := rdb.TTL(t.Context(), "session:"+id).Val(); ttl < 50*time.Minute {
		t.Errorf("a use left it %v, want an hour", ttl)
	}
	if err := rdb.PExpire(t.Context(), "session:"+id, 3*time.Second).Err(); err != nil {
		t.Fatal(err)
	}
	s.expectClose(t, 4001)
	checkProblem(t, g.Do("GET", "/sessions/current", "", cookie), 401)
}

// TestRedisAwayWithForeignSessions: while Redis is away no user counts as logged out.
func TestRedisAwayWithForeignSessions(t *testing.T) {
	g, r := node(t, "HERALD_SESSION_FORMAT=json", "HERALD_SESSION_CHECK=1s")
	const cookie = "Cookie: sid=session-of-alice"
	if err := r.Client().Do(t.Context(), "SETEX", "session:session-of-alice", 3600, `{"userId":"alice"}`).Err(); err != nil {
		t.Fatal(err)
	}
	s, _ := connect(t, g, dialOptions{header: []string{cookie, g.Origin()}})
	r.Stop()
	eventually(t, "the check fails", func() bool { return strings.Contains(g.Log(), "cannot be checked") })
	checkProblem(t, g.Do("GET", "/sessions/current", "", cookie), 503)
	if got := s.alive(t); len(got) > 0 {
		t.Errorf("got %s", rawOf(got))
	}
	r.Continue()
	g.AwaitReady()
	if got := s.alive(t); len(got) > 0 {
		t.Errorf("got %s", rawOf(got))
	}
	if err := r.Client().Del(t.Context(), "session:session-of-alice").Err(); err != nil {
		t.Fatal(err)
	}
	s.expectClose(t, 4002)
}
