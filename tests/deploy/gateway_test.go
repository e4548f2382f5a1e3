package deploy

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"herald/internal/testing/gatewaytest"
	"herald/internal/testing/redistest"
)

// The real program twice, on one real Redis, behind the real nginx.conf.

type site struct {
	gateways [2]*gatewaytest.Gateway
	nginx    *nginx
}

func newSite(t *testing.T, env ...string) *site {
	t.Helper()
	redistest.Require(t, "nginx")
	env = append([]string{"HERALD_TRUSTED_PROXIES=127.0.0.1/32"}, env...)
	env = gatewaytest.Settings(redistest.Start(t).URL(), env...)
	s := &site{}
	for i := range s.gateways {
		s.gateways[i] = gatewaytest.Start(t, env...)
	}
	s.nginx = startNginx(t, s.gateways[0].Addr(), s.gateways[1].Addr())
	return s
}

// frame has the fields that these tests read.
type frame struct {
	Type    string
	Message json.RawMessage
}

// join opens a socket through nginx and reads its hello. On a refusal it returns
// the status of the answer instead.
func (s *site) join(t *testing.T, c *http.Client, user string, header http.Header) (*websocket.Conn, int) {
	t.Helper()
	conn, status := s.dial(t, c, user, header)
	if conn == nil {
		return nil, status
	}
	if f := next(t, conn); f.Type != "hello" {
		t.Fatalf("first frame is %q, want hello", f.Type)
	}
	return conn, status
}

// dial is join without a look at the first frame.
func (s *site) dial(t *testing.T, c *http.Client, user string, header http.Header) (*websocket.Conn, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	conn, resp, err := websocket.Dial(ctx, "ws://"+s.nginx.Addr+"/ws?token="+gatewaytest.UserToken(user), &websocket.DialOptions{
		HTTPClient: c, HTTPHeader: header, Subprotocols: []string{"herald.v1"},
	})
	if err != nil && resp == nil {
		t.Fatalf("dial: %v", err)
	}
	if err != nil {
		return nil, resp.StatusCode
	}
	t.Cleanup(func() { _ = conn.CloseNow() })
	return conn, resp.StatusCode
}

func next(t *testing.T, conn *websocket.Conn) frame {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, b, err := conn.Read(ctx)
	if err != nil {
		t.Fatalf("read a frame: %v", err)
	}
	var f frame
	if err := json.Unmarshal(b, &f); err != nil {
		t.Fatalf("frame %s: %v", b, err)
	}
	return f
}

func asBackend() http.Header {
	return http.Header{"Authorization": {"Bearer " + gatewaytest.Key}, "Content-Type": {"application/json"}}
}

func (s *site) publish(t *testing.T, body string) answer {
	t.Helper()
	return do(t, client(t, "127.0.0.1"), "POST", s.nginx.URL()+"/notify", body, asBackend())
}

func TestSocketsOnBothGatewaysHearOnePublish(t *testing.T) {
	s := newSite(t)
	conns := make([]*websocket.Conn, 6)
	for i := range conns {
		conns[i], _ = s.join(t, client(t, "127.0.0.1"), "42", nil)
	}
	for i, g := range s.gateways {
		if n := g.Metric("herald_connections"); n != 3 {
			t.Errorf("gateway %d holds %v of the 6 sockets, want 3", i+1, n)
		}
	}
	if a := s.publish(t, `{"userId":"42","message":{"n": 1}}`); a.Status != 200 {
		t.Fatalf("publish: %d %s", a.Status, a.Body)
	}
	for i, c := range conns {
		if f := next(t, c); f.Type != "notification" || string(f.Message) != `{"n": 1}` {
			t.Errorf("socket %d got %s %s", i, f.Type, f.Message)
		}
	}
}

func TestEventsThroughNginx(t *testing.T) {
	s := newSite(t)
	resp, err := client(t, "127.0.0.1").Get(s.nginx.URL() + "/events?token=" + gatewaytest.UserToken("42"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	await := func(want string) {
		t.Helper()
		for lines.Scan() {
			if strings.Contains(lines.Text(), want) {
				return
			}
		}
		t.Fatalf("stream ended before %q: %v", want, lines.Err())
	}
	await(`"type":"hello"`)
	if a := s.publish(t, `{"userId":"42","message":"m1"}`); a.Status != 200 {
		t.Fatalf("publish: %d %s", a.Status, a.Body)
	}
	await(`"message":"m1"`)
}

func TestConnectLimitCountsTheClientNotNginx(t *testing.T) {
	s := newSite(t, "HERALD_CONNECT_LIMIT=4/10m")
	one, other := client(t, "127.0.0.2"), client(t, "127.0.0.3")
	for i := range 4 {
		if _, status := s.join(t, one, "42", nil); status != http.StatusSwitchingProtocols {
			t.Fatalf("attempt %d of 4: %d", i+1, status)
		}
	}
	if _, status := s.join(t, one, "42", nil); status != http.StatusTooManyRequests {
		t.Errorf("attempt 5 of 4: %d, want 429", status)
	}
	for _, claim := range []string{"203.0.113.9", "127.0.0.3", "203.0.113.9, 127.0.0.1"} {
		spoofed := http.Header{"X-Forwarded-For": {claim}, "X-Real-IP": {claim}, "Forwarded": {"for=" + claim}}
		if _, status := s.join(t, one, "42", spoofed); status != http.StatusTooManyRequests {
			t.Errorf("X-Forwarded-For %q from the client: %d, want 429", claim, status)
		}
	}
	if _, status := s.join(t, other, "42", nil); status != http.StatusSwitchingProtocols {
		t.Errorf("another client: %d", status)
	}
}

func TestTooLargeBodyIsTheGatewaysToRefuse(t *testing.T) {
	s := newSite(t)
	body := `{"userId":"42","message":1}`
	a := s.publish(t, body+strings.Repeat(" ", 1<<20+1-len(body)))
	if a.Status != 413 || a.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("1 MiB and a byte: %d %s %s", a.Status, a.Header.Get("Content-Type"), a.Body)
	}
	s.nginx.AccessLog(t, "upstream_status=413")
	if a := s.publish(t, body+strings.Repeat(" ", 1<<20-len(body))); a.Status != 200 {
		t.Errorf("exactly 1 MiB: %d %s", a.Status, a.Body)
	}
}

func TestTokensInQueriesAreNotLogged(t *testing.T) {
	s := newSite(t)
	secret := gatewaytest.UserToken("42")
	conn, _ := s.join(t, client(t, "127.0.0.1"), "42", nil)
	_ = conn.Close(websocket.StatusNormalClosure, "")
	do(t, client(t, "127.0.0.1"), "GET", s.nginx.URL()+"/inbox?token="+secret, "", nil)
	log := s.nginx.AccessLog(t, " GET /ws 101") + s.nginx.AccessLog(t, " GET /inbox ") + read(t, s.nginx.errorLog)
	for _, g := range s.gateways {
		log += g.Log()
	}
	if strings.Contains(log, secret) || strings.Contains(log, secret[strings.LastIndex(secret, "."):]) {
		t.Errorf("a token is in a log:\n%s", log)
	}
}

func TestNewConnectionsSurviveADeadGateway(t *testing.T) {
	s := newSite(t)
	s.gateways[0].Kill()
	for i := range 12 {
		if conn, status := s.join(t, client(t, "127.0.0.1"), "42", nil); status != http.StatusSwitchingProtocols {
			t.Fatalf("connection %d after a gateway was killed: %d", i+1, status)
		} else {
			_ = conn.CloseNow()
		}
		if a := s.publish(t, `{"userId":"7","message":1}`); a.Status != 200 {
			t.Fatalf("publish %d after a gateway was killed: %d %s", i+1, a.Status, a.Body)
		}
	}
}

// A rolling restart: one gateway drains while clients connect. A client between its
// upgrade and its hello gets a bye; later clients reach the other gateway.
func TestNewConnectionsSurviveADrain(t *testing.T) {
	s := newSite(t, "HERALD_DRAIN=5s")
	for _, user := range []string{"1", "2"} {
		conn, _ := s.join(t, client(t, "127.0.0.1"), user, nil)
		go readAway(t.Context(), conn)
	}
	exit := make(chan int, 1)
	s.gateways[0].Terminate()
	go func() { exit <- s.gateways[0].Wait() }()
	var sentAway []string
	for done := false; !done; {
		select {
		case code := <-exit:
			done = true
			if code != 0 {
				t.Errorf("the drained gateway exited with %d:\n%s", code, s.gateways[0].Log())
			}
		default:
		}
		conn, status := s.dial(t, client(t, "127.0.0.1"), "42", nil)
		if status != http.StatusSwitchingProtocols {
			t.Fatalf("a new connection during the drain: %d", status)
		}
		if f := next(t, conn); f.Type != "hello" {
			sentAway = append(sentAway, f.Type)
		}
		_ = conn.CloseNow()
	}
	if len(sentAway) > 1 || len(sentAway) == 1 && sentAway[0] != "bye" {
		t.Errorf("first frames other than hello: %v", sentAway)
	}
}

// readAway reads until the socket closes, as a browser does, so that the gateway's close
// frame is answered.
func readAway(ctx context.Context, conn *websocket.Conn) {
	for {
		if _, _, err := conn.Read(ctx); err != nil {
			return
		}
	}
}
