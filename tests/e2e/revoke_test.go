package e2e

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"herald/internal/testing/gatewaytest"
)

func TestRevokingClosesSocketsOnEveryNode(t *testing.T) {
	a, b, _ := twoNodes(t)
	one, two, other := a.CreateSession("alice"), b.CreateSession("alice"), a.CreateSession("alice2")
	oneOnA, oneOnB := connectWith(t, a, one), connectWith(t, b, one)
	twoOnA, twoOnB := connectWith(t, a, two), connectWith(t, b, two)
	staying := map[string]*socket{
		"alice by token on a": connectAs(t, a, "alice"),
		"alice by token on b": connectAs(t, b, "alice"),
		"alice2 by session":   connectWith(t, b, other),
	}
	stay := func(more map[string]*socket) {
		t.Helper()
		for _, list := range []map[string]*socket{staying, more} {
			for who, s := range list {
				if got := s.alive(t); len(got) > 0 {
					t.Errorf("%s got %s", who, rawOf(got))
				}
			}
		}
	}

	checkRevoked(t, a.Backend("DELETE", "/sessions/"+two.Handle, ""), 1)
	twoOnA.expectClose(t, 4002)
	twoOnB.expectClose(t, 4002)
	stay(map[string]*socket{"session one on a": oneOnA, "session one on b": oneOnB})
	checkLoggedOut(t, a, two)
	checkLoggedOut(t, b, two)

	checkRevoked(t, b.Backend("DELETE", "/users/alice/sessions", ""), 1)
	oneOnA.expectClose(t, 4002)
	oneOnB.expectClose(t, 4002)
	stay(nil)
	checkLoggedOut(t, a, one)

	checkRevoked(t, a.Backend("DELETE", "/users/alice/sessions", ""), 0)
	checkProblem(t, a.Backend("DELETE", "/sessions/"+one.Handle, ""), http.StatusNotFound)
	for _, gone := range []*socket{oneOnA, oneOnB, twoOnA, twoOnB} {
		if took := gone.gone(t); took > closesWithin {
			t.Errorf("a revoked connection lingered for %v", took)
		}
	}
}

func checkRevoked(t *testing.T, a gatewaytest.Answer, want int) {
	t.Helper()
	var answer struct{ Revoked *int }
	if a.Status != 200 {
		t.Fatalf("revoke: %d %s", a.Status, a.Body)
	}
	if a.Decode(t, &answer); answer.Revoked == nil || *answer.Revoked != want {
		t.Errorf("revoke: %s, want %d revoked", a.Body, want)
	}
}

func checkLoggedOut(t *testing.T, g *gatewaytest.Gateway, s gatewaytest.Session) {
	t.Helper()
	checkProblem(t, g.Do("GET", "/sessions/current", "", s.Cookie()), 401)
	checkProblem(t, g.Do("GET", "/inbox", "", s.Cookie()), 401)
	tryConnect(t, g, "/ws", append([]string{s.Cookie(), g.Origin()}, upgrading...), 401)
	tryConnect(t, g, "/ws", []string{s.Cookie(), g.Origin()}, 401)
}

// TestLogOutFromTheBrowser: with the cookie alone, and only from the own site.
func TestLogOutFromTheBrowser(t *testing.T) {
	a, b, _ := twoNodes(t)
	session, other := a.CreateSession("alice"), a.CreateSession("alice")
	s, stays := connectWith(t, b, session), connectWith(t, b, other)
	checkProblem(t, a.Do("DELETE", "/sessions/current", "", session.Cookie()), 403)
	checkProblem(t, a.Do("DELETE", "/sessions/current", "", session.Cookie(), "Origin: https://evil.example"), 403)
	checkProblem(t, a.Do("DELETE", "/sessions/current", "", a.Origin()), 401)
	s.alive(t)
	answer := a.Do("DELETE", "/sessions/current", "", session.Cookie(), a.Origin())
	if answer.Status/100 != 2 {
		t.Fatalf("log out: %d %s", answer.Status, answer.Body)
	}
	if cookie := answer.Header.Get("Set-Cookie"); !strings.HasPrefix(cookie, "sid=;") {
		t.Errorf("Set-Cookie %q does not take the cookie back", cookie)
	}
	s.expectClose(t, 4002)
	checkLoggedOut(t, b, session)
	stays.alive(t)
}

// TestRevokedWhileConnecting opens sockets while their sessions are being
// revoked: whichever comes first, none may stay.
func TestRevokedWhileConnecting(t *testing.T) {
	a, b, _ := twoNodes(t, "HERALD_MAX_CONNECTIONS_PER_USER=1000")
	for round := range 20 {
		session := a.CreateSession("alice")
		done := make(chan *socket)
		for i := range 8 {
			go func() {
				g := []*gatewaytest.Gateway{a, b}[i%2]
				s, err := dial(g.Addr(), dialOptions{header: []string{session.Cookie(), g.Origin()}})
				// 503: on a busy machine, Redis did not answer in time.
				if err != nil && !strings.Contains(err.Error(), "401") && !strings.Contains(err.Error(), "503") {
					t.Errorf("round %d: %v", round, err)
				}
				done <- s
			}()
		}
		a.Backend("DELETE", "/sessions/"+session.Handle, "")
		for range 8 {
			if s := <-done; s != nil {
				s.expectClose(t, 4002)
				_ = s.conn.Close()
			}
		}
	}
}

// TestRedisThatHangsIsNotALogOut: while sessions cannot be checked, the answer is 503
// within the budget, and open connections stay.
func TestRedisThatHangsIsNotALogOut(t *testing.T) {
	g, r := node(t)
	session := g.CreateSession("alice")
	bySession, byToken := connectWith(t, g, session), connectAs(t, g, "alice")
	r.Stop()
	requests := map[string]func() gatewaytest.Answer{
		"upgrade": func() gatewaytest.Answer {
			return g.Do("GET", "/ws", "", append([]string{session.Cookie(), g.Origin()}, upgrading...)...)
		},
		"plain /ws":       func() gatewaytest.Answer { return g.Do("GET", "/ws", "", session.Cookie(), g.Origin()) },
		"current session": func() gatewaytest.Answer { return g.Do("GET", "/sessions/current", "", session.Cookie()) },
		"log out": func() gatewaytest.Answer {
			return g.Do("DELETE", "/sessions/current", "", session.Cookie(), g.Origin())
		},
		"inbox":          func() gatewaytest.Answer { return g.Do("GET", "/inbox", "", session.Cookie()) },
		"create":         func() gatewaytest.Answer { return g.Backend("POST", "/sessions", `{"userId":"bob"}`) },
		"list":           func() gatewaytest.Answer { return g.Backend("GET", "/users/alice/sessions", "") },
		"revoke":         func() gatewaytest.Answer { return g.Backend("DELETE", "/sessions/"+session.Handle, "") },
		"revoke all":     func() gatewaytest.Answer { return g.Backend("DELETE", "/users/alice/sessions", "") },
		"publish":        func() gatewaytest.Answer { return g.Backend("POST", "/notify", `{"userId":"alice","message":1}`) },
		"Redis's health": func() gatewaytest.Answer { return g.Do("GET", "/health/redis", "") },
	}
	for name, request := range requests {
		began := time.Now()
		a := request()
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("%s took %v", name, took)
		}
		if checkProblem(t, a, http.StatusServiceUnavailable); a.Status != 503 {
			t.Errorf("%s: %d", name, a.Status)
		}
		if name == "publish" && a.Header.Get("Retry-After") == "" {
			t.Error("publish: 503 without Retry-After")
		}
	}
	g.AwaitNotReady()
	for _, s := range []*socket{bySession, byToken} {
		if got := s.alive(t); len(got) > 0 {
			t.Errorf("while Redis hung came %s", rawOf(got))
		}
	}
	r.Continue()
	g.AwaitReady()
	id := g.Publish("alice", `"after"`).ID
	for _, s := range []*socket{bySession, byToken} {
		// A revocation answered 503 may have been executed when Redis continued; a publish
		// answered 503 must not have been.
		m, err := s.next()
		switch {
		case err != nil:
			t.Error(err)
		case m.Type == "notification" && m.ID == id && string(m.Message) == `"after"`:
		case m.Type == "bye" && s == bySession:
		default:
			t.Errorf("after Redis was back came %s", m.raw)
		}
	}
}
