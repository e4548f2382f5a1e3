package e2e

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"herald/internal/testing/gatewaytest"
	"herald/internal/testing/redistest"
)

func TestDrain(t *testing.T) {
	t.Parallel()
	g, r := node(t)
	staying := gatewaytest.Start(t, gatewaytest.Settings(r.URL())...)
	var sockets []*socket
	for range 10 {
		sockets = append(sockets, connectAs(t, g, "alice"))
	}
	mute := connectAs(t, g, "mute") // its close is never answered, so the drain takes a moment
	mute.mute = true
	last := g.Publish("alice", "1").ID
	for _, s := range sockets {
		s.expect(t, "notification")
	}

	g.Terminate()
	g.AwaitNotReady()
	checkDraining(t, g)
	for _, s := range append(sockets, mute) {
		before := s.expectClose(t, 4101)
		if bye := before[len(before)-1]; bye.RetryAfterMs < 1000 || bye.RetryAfterMs > 60_000 || bye.Reason == "" {
			t.Errorf("bye: %s, want a reason and a retryAfterMs of a second or more", bye.raw)
		}
	}
	if code := g.Wait(); code != 0 {
		t.Errorf("exit code %d, want 0:\n%s", code, g.Log())
	}

	// The client resumes on the other node and misses nothing.
	id := staying.Publish("alice", "2").ID
	s, _ := connect(t, staying, dialOptions{path: "/ws?since=" + strconv.FormatInt(last, 10), header: []string{bearer("alice")}})
	if m := s.expect(t, "notification"); m.ID != id || m.Prev != last {
		t.Errorf("after the drain: %s", m.raw)
	}
}

// checkDraining checks a draining node: alive, not ready, and refusing new streams.
func checkDraining(t *testing.T, g *gatewaytest.Gateway) {
	t.Helper()
	p := checkProblem(t, g.Do("GET", "/health/ready", ""), 503)
	if !strings.Contains(p.Error+p.Detail, "drain") && !strings.Contains(p.Detail, "going away") {
		t.Errorf("readiness does not say why: %+v", p)
	}
	if a := g.Do("GET", "/health/live", ""); a.Status != 200 {
		t.Errorf("liveness %d", a.Status)
	}
	for _, header := range [][]string{{bearer("late")}, append([]string{bearer("late")}, upgrading...)} {
		a := g.Do("GET", "/ws", "", header...)
		if checkProblem(t, a, 503); a.Header.Get("Retry-After") == "" {
			t.Error("503 without Retry-After")
		}
	}
}

// TestConnectingWhileTheDrainBegins: a client that connects as the drain begins gets a bye
// like the others.
func TestConnectingWhileTheDrainBegins(t *testing.T) {
	t.Parallel()
	g, _ := node(t, "HERALD_MAX_CONNECTIONS_PER_USER=0")
	const dialers = 8
	codes := make(chan int, 10_000)
	var all sync.WaitGroup
	for i := range dialers {
		all.Go(func() {
			for {
				s, err := dial(g.Addr(), dialOptions{header: []string{bearer("user" + strconv.Itoa(i))}})
				if err != nil {
					return // refused: the drain has begun
				}
				all.Go(func() {
					codes <- s.endCode(t, patience)
					_ = s.conn.Close()
				})
			}
		})
	}
	eventually(t, "some are connected", func() bool { return g.Metric("herald_connections") > 100 })
	began := time.Now()
	code := g.Stop()
	if took := time.Since(began); took > 10*time.Second || code != 0 {
		t.Errorf("the drain took %v, exit code %d", took, code)
	}
	all.Wait()
	close(codes)
	for code := range codes {
		if code != 4101 {
			t.Errorf("a connection ended with %d, want 4101", code)
		}
	}
}

func TestDrainWithoutConnectionsIsImmediate(t *testing.T) {
	g, _ := node(t)
	began := time.Now()
	if code := g.Stop(); code != 0 {
		t.Errorf("exit code %d:\n%s", code, g.Log())
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}

// TestDrainIsBounded: neither silent peers nor unfinished requests keep the process from
// exiting.
func TestDrainIsBounded(t *testing.T) {
	t.Parallel()
	g, _ := node(t, "HERALD_DRAIN=2s")
	for i := range 5 {
		s, _ := connect(t, g, dialOptions{header: []string{bearer("stuck" + strconv.Itoa(i))}, recvBuffer: 4096})
		s.mute = true
	}
	half, err := dialTCP(g.Addr(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = half.Close() }()
	if _, err := half.Write([]byte("POST /notify HTTP/1.1\r\n")); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	code := g.Stop()
	if took := time.Since(began); took > 12*time.Second {
		t.Errorf("it took %v", took)
	}
	if code != 0 {
		t.Errorf("exit code %d: a client decides whether a stop was clean\n%s", code, g.Log())
	}
}

func TestStartWhileRedisIsDown(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	r.Kill()
	g := gatewaytest.Launch(t, gatewaytest.Build(t), gatewaytest.Settings(r.URL())...)
	for range 10 {
		p := checkProblem(t, g.Do("GET", "/health/ready", ""), 503)
		if !strings.Contains(p.Detail, "Redis") {
			t.Errorf("readiness does not say why: %+v", p)
		}
		if a := g.Do("GET", "/health/live", ""); a.Status != 200 {
			t.Errorf("liveness %d", a.Status)
		}
		time.Sleep(200 * time.Millisecond) // it must stay, through several attempts
	}
	a := g.Backend("POST", "/notify", `{"userId":"alice","message":1}`)
	if checkProblem(t, a, 503); a.Header.Get("Retry-After") == "" {
		t.Error("503 without Retry-After")
	}
	checkProblem(t, g.Do("GET", "/health/redis", ""), 503)
	r.Restart()
	g.AwaitReady()
	s := connectAs(t, g, "alice")
	g.Publish("alice", "1")
	s.expect(t, "notification")
}

// TestRedisRestart: sockets stay open, and what another node stored meanwhile arrives in
// order.
func TestRedisRestart(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	g := gatewaytest.Start(t, gatewaytest.Settings(r.URL())...)
	s := connectAs(t, g, "alice")
	prev := g.Publish("alice", `"before"`).ID
	s.expect(t, "notification")
	for round := range 3 {
		r.Restart()
		g.AwaitReady()
		id := g.Publish("alice", strconv.Itoa(round)).ID
		if m := s.expect(t, "notification"); m.ID != id || m.Prev != prev {
			t.Errorf("round %d: %s, want id %d after %d", round, m.raw, id, prev)
		}
		prev = id
	}
	s.alive(t)
}

// TestPausedNodeMissesNothing: a node that was stopped for longer than the timeouts of
// Redis and its peers delivers what was published meanwhile.
func TestPausedNodeMissesNothing(t *testing.T) {
	t.Parallel()
	a, b, _ := twoNodes(t)
	s := connectAs(t, b, "alice")
	b.Pause()
	var ids []int64
	for range 50 {
		ids = append(ids, a.Publish("alice", "1").ID)
	}
	time.Sleep(4 * time.Second) // longer than the subscription may be silent
	b.Continue()
	for _, id := range ids {
		if m := s.expect(t, "notification"); m.ID != id {
			t.Fatalf("got id %d, want %d", m.ID, id)
		}
	}
	s.alive(t)
}

func TestSessionExpiryClosesTheSocket(t *testing.T) {
	t.Parallel()
	g, _ := node(t, "HERALD_SESSION_TTL=2s")
	idle, used := g.CreateSession("idle"), g.CreateSession("used")
	began := time.Now()
	idleSocket, usedSocket := connectWith(t, g, idle), connectWith(t, g, used)
	for time.Since(began) < 3*time.Second { // each use slides the session on
		if a := g.Do("GET", "/sessions/current", "", used.Cookie()); a.Status != 200 {
			t.Fatalf("use: %d %s", a.Status, a.Body)
		}
		usedSocket.alive(t)
		time.Sleep(300 * time.Millisecond)
	}
	idleSocket.expectClose(t, 4001)
	checkLoggedOut(t, g, idle)
	slid := time.Now()
	usedSocket.expectClose(t, 4001)
	if took := time.Since(slid); took < time.Second || took > 5*time.Second {
		t.Errorf("it took %v after the last use, with a life of 2 s", took)
	}
}

func TestAbsoluteExpiryEndsAUsedSession(t *testing.T) {
	t.Parallel()
	g, _ := node(t, "HERALD_SESSION_TTL=2s", "HERALD_SESSION_MAX_AGE=3s")
	session := g.CreateSession("alice")
	began := time.Now()
	s := connectWith(t, g, session)
	for g.Do("GET", "/sessions/current", "", session.Cookie()).Status == 200 {
		if time.Since(began) > patience {
			t.Fatal("a session that is used never ends")
		}
		time.Sleep(200 * time.Millisecond)
	}
	if took := time.Since(began); took < 2*time.Second || took > 5*time.Second {
		t.Errorf("it ended after %v, want 3 s", took)
	}
	s.expectClose(t, 4001)
}

// expiring returns a token that expires in about that many seconds, and the exact time.
func expiring(userID string, seconds int) (token string, exp time.Time) {
	exp = time.Now().Truncate(time.Second).Add(time.Duration(seconds) * time.Second)
	return gatewaytest.Token(gatewaytest.Claims{"sub": userID, "exp": exp.Unix()}), exp
}

// endsAt waits for close 4001, which must not come before that time.
func endsAt(t *testing.T, s *socket, want time.Time) {
	t.Helper()
	s.expectClose(t, 4001)
	if late := time.Since(want); late < -100*time.Millisecond || late > 3*time.Second {
		t.Errorf("closed %v after exp", late)
	}
}

func TestTokenExpiry(t *testing.T) {
	t.Parallel()
	g, _ := node(t)
	open := func(t *testing.T, user string, seconds int) (*socket, time.Time) {
		t.Helper()
		token, exp := expiring(user, seconds)
		s, _ := connect(t, g, dialOptions{header: []string{"Authorization: Bearer " + token}})
		return s, exp
	}
	show := func(t *testing.T, s *socket, token string) (answers []message) {
		t.Helper()
		if err := s.text(`{"type":"token","token":"` + token + `"}`); err != nil {
			t.Fatal(err)
		}
		return s.alive(t)
	}
	t.Run("closes", func(t *testing.T) {
		t.Parallel()
		s, exp := open(t, "alice", 2)
		endsAt(t, s, exp)
	})
	t.Run("is extended by a token", func(t *testing.T) {
		t.Parallel()
		s, first := open(t, "alice", 2)
		longer, exp := expiring("alice", 5)
		if got := show(t, s, longer); len(got) > 0 {
			t.Errorf("a good token was answered by %s", rawOf(got))
		}
		time.Sleep(time.Until(first.Add(1500 * time.Millisecond)))
		s.alive(t)
		endsAt(t, s, exp)
	})
	t.Run("is not shortened", func(t *testing.T) {
		t.Parallel()
		s, exp := open(t, "alice", 4)
		shorter, _ := expiring("alice", 2)
		show(t, s, shorter)
		endsAt(t, s, exp)
	})
	for name, token := range map[string]string{
		"another user's token": gatewaytest.UserToken("mallory"),
		"a forged token":       gatewaytest.SignToken(gatewaytest.Claims{"alg": "HS256", "kid": "k1"}, gatewaytest.Claims{"sub": "alice", "exp": 9999999999}, "x"),
		"a token without end":  gatewaytest.Token(gatewaytest.Claims{"sub": "alice"}),
		"no token":             "x",
	} {
		t.Run("is not extended by "+name, func(t *testing.T) {
			t.Parallel()
			s, exp := open(t, "alice", 2)
			if err := s.text(`{"type":"token","token":"` + token + `"}`); err != nil {
				t.Fatal(err)
			}
			m, err := s.next()
			if err != nil {
				var end closed
				if !errors.As(err, &end) {
					t.Fatal(err)
				}
				return // closed for it: also never extended
			}
			if m.Type != "error" || m.Error == "" || strings.Contains(m.raw, "eyJ") {
				t.Errorf("answered by %s", m.raw)
			}
			endsAt(t, s, exp)
		})
	}
	t.Run("a session is not extended by a token", func(t *testing.T) {
		t.Parallel()
		g := g.For(t)
		session := g.CreateSession("alice")
		s := connectWith(t, g, session)
		show(t, s, gatewaytest.UserToken("alice"))
		g.Backend("DELETE", "/sessions/"+session.Handle, "")
		s.expectClose(t, 4002)
	})
}

func TestTooManyConnectionsOfOneUser(t *testing.T) {
	g, _ := node(t, "HERALD_MAX_CONNECTIONS_PER_USER=2")
	first, second := connectAs(t, g, "alice"), connectAs(t, g, "alice")
	third, err := dial(g.Addr(), dialOptions{header: []string{bearer("alice")}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = third.conn.Close() }()
	third.expectClose(t, 4004)
	connectAs(t, g, "bob").alive(t)
	second.alive(t)
	_ = first.send(fin|opClose, []byte{3, 232})
	first.gone(t)
	eventually(t, "there is room again", func() bool { return g.Metric("herald_connections") == 2 })
	connectAs(t, g, "alice").alive(t)
}

func TestOverCapacity(t *testing.T) {
	g, _ := node(t, "HERALD_MAX_CONNECTIONS=2")
	connectAs(t, g, "a")
	connectAs(t, g, "b")
	a := g.Do("GET", "/ws", "", append([]string{bearer("c")}, upgrading...)...)
	if checkProblem(t, a, http.StatusServiceUnavailable); a.Header.Get("Retry-After") == "" {
		t.Error("503 without Retry-After")
	}
}
