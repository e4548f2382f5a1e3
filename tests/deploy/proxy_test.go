package deploy

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

// These tests use plain HTTP servers instead of gateways: what nginx forwards, retries,
// refuses and logs does not depend on them.

// backend starts a server and returns its host:port.
func backend(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// seen is a request that reached a backend.
type seen struct {
	Host   string
	Header http.Header
}

func recorder(into *record[seen]) http.HandlerFunc {
	return func(_ http.ResponseWriter, r *http.Request) {
		into.add(seen{Host: r.Host, Header: r.Header.Clone()})
	}
}

func TestNginxTellsTheGatewayWhoAsks(t *testing.T) {
	var got record[seen]
	n := startNginx(t, backend(t, recorder(&got)))
	spoofed := http.Header{
		"X-Forwarded-For":   {"203.0.113.7"},
		"X-Forwarded-Proto": {"https"},
		"X-Forwarded-Host":  {"evil.example"},
		"X-Real-IP":         {"203.0.113.7"},
		"Forwarded":         {"for=203.0.113.7"},
		"Host":              {"app.example:8080"},
	}
	for _, path := range []string{"/notify", "/ws", "/events"} {
		if a := do(t, client(t, "127.0.0.2"), "GET", n.URL()+path, "", spoofed); a.Status != 200 {
			t.Fatalf("GET %s: %d %s", path, a.Status, a.Body)
		}
	}
	want := map[string]string{
		"X-Forwarded-For":   "203.0.113.7, 127.0.0.2",
		"X-Forwarded-Proto": "http",
		"X-Forwarded-Host":  "app.example:8080",
		"X-Real-IP":         "127.0.0.2",
		"Forwarded":         "",
	}
	if len(got.all()) != 3 {
		t.Fatalf("the backend saw %d requests, want 3", len(got.all()))
	}
	for _, s := range got.all() {
		for name, value := range want {
			if s.Header.Get(name) != value {
				t.Errorf("%s: got %q, want %q", name, s.Header.Get(name), value)
			}
		}
		if s.Host != "app.example:8080" {
			t.Errorf("Host: got %q, want it with its port", s.Host)
		}
	}
}

func TestNginxUpgradesToWebSocketOnly(t *testing.T) {
	var got record[seen]
	n := startNginx(t, backend(t, recorder(&got)))
	for _, c := range []struct{ upgrade, want string }{
		{"websocket", "websocket"}, {"WebSocket", "websocket"}, {"h2c", ""}, {"", ""},
	} {
		h := http.Header{"Connection": {"Upgrade"}, "Upgrade": {c.upgrade}}
		if c.upgrade == "" {
			h = nil
		}
		do(t, client(t, "127.0.0.1"), "GET", n.URL()+"/ws", "", h)
		last := got.all()[len(got.all())-1].Header
		if last.Get("Upgrade") != c.want {
			t.Errorf("Upgrade %q reached the gateway as %q, want %q", c.upgrade, last.Get("Upgrade"), c.want)
		}
		if upgraded := strings.EqualFold(last.Get("Connection"), "upgrade"); upgraded != (c.want != "") {
			t.Errorf("Upgrade %q: Connection %q", c.upgrade, last.Get("Connection"))
		}
	}
}

func TestNginxReusesConnectionsForRequests(t *testing.T) {
	var from record[string]
	n := startNginx(t, backend(t, func(_ http.ResponseWriter, r *http.Request) { from.add(r.RemoteAddr) }))
	for range 20 {
		do(t, client(t, "127.0.0.1"), "POST", n.URL()+"/notify", "{}", nil)
	}
	all := from.all()
	slices.Sort(all)
	if conns := len(slices.Compact(all)); conns > 8 {
		t.Errorf("20 requests took %d connections to the gateway", conns)
	}
}

// reset is a gateway that dies during a request: it reads all of it, counts it, and closes
// without an answer.
func reset(t *testing.T, count *record[string]) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if req, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				count.add(req.Method)
			}
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().String()
}

func TestNginxNeverPublishesTwice(t *testing.T) {
	for _, method := range []string{"POST", "PATCH"} {
		var count record[string]
		n := startNginx(t, reset(t, &count), reset(t, &count), reset(t, &count))
		a := do(t, client(t, "127.0.0.1"), method, n.URL()+"/notify", `{"userId":"42","message":1}`, nil)
		if got := len(count.all()); got != 1 {
			t.Errorf("%s reached gateways %d times, want once", method, got)
		}
		if a.Status != 502 || a.Header.Get("Content-Type") != "application/problem+json" || !strings.Contains(a.Body, `"error":"no_answer"`) {
			t.Errorf("%s: %d %s %s", method, a.Status, a.Header.Get("Content-Type"), a.Body)
		}
	}
	var count record[string]
	n := startNginx(t, reset(t, &count), reset(t, &count), reset(t, &count))
	do(t, client(t, "127.0.0.1"), "GET", n.URL()+"/inbox", "", nil)
	if got := len(count.all()); got != 3 {
		t.Errorf("GET was tried %d times, want on each gateway once", got)
	}
}

// closedPort is an address where nothing listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestNginxPublishesPastADeadGateway(t *testing.T) {
	var count record[seen]
	n := startNginx(t, closedPort(t), closedPort(t), backend(t, recorder(&count)))
	for i := range 10 {
		if a := do(t, client(t, "127.0.0.1"), "POST", n.URL()+"/notify", "{}", nil); a.Status != 200 {
			t.Fatalf("publish %d: %d %s", i, a.Status, a.Body)
		}
	}
	if got := len(count.all()); got != 10 {
		t.Errorf("10 publishes reached the living gateway %d times", got)
	}
}

func TestNginxPassesOverADrainingGateway(t *testing.T) {
	var joined record[seen]
	draining := backend(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	n := startNginx(t, draining, backend(t, recorder(&joined)))
	for _, path := range []string{"/ws", "/events"} {
		for range 5 {
			if a := do(t, client(t, "127.0.0.1"), "GET", n.URL()+path, "", nil); a.Status != 200 {
				t.Fatalf("GET %s while one gateway drains: %d", path, a.Status)
			}
		}
	}
	if got := len(joined.all()); got != 10 {
		t.Errorf("%d of 10 reached the other gateway", got)
	}
}

// A 503 tells a publisher that nothing was stored. Only the gateway can say so, and nginx
// forwards it unchanged.
func TestNginxHandsOnARefusal(t *testing.T) {
	n := startNginx(t, backend(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write([]byte("from the gateway"))
	}))
	for range 3 {
		a := do(t, client(t, "127.0.0.1"), "POST", n.URL()+"/notify", "{}", nil)
		if a.Status != 503 || a.Header.Get("Retry-After") != "7" || a.Body != "from the gateway" {
			t.Fatalf("got %d, Retry-After %q, %s", a.Status, a.Header.Get("Retry-After"), a.Body)
		}
	}
}

func TestNginxHidesTheOperatorsPages(t *testing.T) {
	var got record[seen]
	n := startNginx(t, backend(t, recorder(&got)))
	for _, path := range []string{"/metrics", "/Metrics", "/metrics/", "//metrics", "/x/../metrics", "/%6detrics", "/debug/pprof/", "/debug/pprof/heap"} {
		a := do(t, client(t, "127.0.0.1"), "GET", n.URL()+path, "", nil)
		if a.Status != 404 || a.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("GET %s: %d %s", path, a.Status, a.Header.Get("Content-Type"))
		}
	}
	if got := got.all(); len(got) != 0 {
		t.Errorf("%d of them reached the gateway", len(got))
	}
}

func TestNginxBodyLimits(t *testing.T) {
	var got record[int64]
	n := startNginx(t, backend(t, func(_ http.ResponseWriter, r *http.Request) { got.add(r.ContentLength) }))
	if a := do(t, client(t, "127.0.0.1"), "POST", n.URL()+"/notify", strings.Repeat(" ", 1<<20+1), nil); a.Status != 200 {
		t.Errorf("1 MiB and a byte is the gateway's to refuse, nginx answered %d", a.Status)
	}
	a := do(t, client(t, "127.0.0.1"), "POST", n.URL()+"/notify", strings.Repeat(" ", 2<<20), nil)
	if a.Status != 413 || a.Header.Get("Content-Type") != "application/problem+json" || !strings.Contains(a.Body, `"status":413`) {
		t.Errorf("2 MiB: %d %s %s", a.Status, a.Header.Get("Content-Type"), a.Body)
	}
	if sizes := got.all(); !slices.Equal(sizes, []int64{1<<20 + 1}) {
		t.Errorf("the gateway got bodies of %v bytes", sizes)
	}
}

func TestNginxPassesEventsOnAtOnce(t *testing.T) {
	headRead := make(chan struct{})
	n := startNginx(t, backend(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-headRead:
		case <-r.Context().Done():
		}
		_, _ = io.WriteString(w, "data: 1\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	c := client(t, "127.0.0.1")
	c.Timeout = 10 * time.Second
	resp, err := c.Get(n.URL() + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	close(headRead)
	if line, err := bufio.NewReader(resp.Body).ReadString('\n'); line != "data: 1\n" {
		t.Errorf("while the stream is open: %q, %v", line, err)
	}
}

func TestNginxPassesLongTokens(t *testing.T) {
	n := startNginx(t, backend(t, func(http.ResponseWriter, *http.Request) {}))
	token := strings.Repeat("x", 12<<10)
	byQuery := do(t, client(t, "127.0.0.1"), "GET", n.URL()+"/ws?token="+token, "", nil)
	byHeader := do(t, client(t, "127.0.0.1"), "GET", n.URL()+"/ws", "", http.Header{"Authorization": {"Bearer " + token}})
	tooLong := do(t, client(t, "127.0.0.1"), "GET", n.URL()+"/ws", "", http.Header{"Authorization": {"Bearer " + token + token}})
	if tooLong.Status != 431 || tooLong.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("a token of 24 KiB: %d %s", tooLong.Status, tooLong.Body)
	}
	if byQuery.Status != 200 || byHeader.Status != 200 {
		t.Errorf("a token of 12 KiB: %d in the query, %d in a header", byQuery.Status, byHeader.Status)
	}
}

// raw sends bytes no HTTP client would and waits for the end of the answer.
func raw(t *testing.T, addr, request string) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(c); err != nil {
		t.Fatal(err)
	}
}

// Every cause of an error line: no gateway, a gateway that closes, a body that is too
// large, an unknown path, and an invalid request.
func TestNginxWritesNoToken(t *testing.T) {
	const token = "eyJhbGciOiJIUzI1NiJ9.c2VjcmV0"
	var count record[string]
	n := startNginx(t, closedPort(t), reset(t, &count))
	c := client(t, "127.0.0.1")
	referrer := http.Header{"Referer": {"http://app.example/?token=" + token}}
	for _, path := range []string{"/ws", "/events", "/inbox", "/metrics"} {
		do(t, c, "GET", n.URL()+path+"?token="+token, "", referrer)
	}
	do(t, c, "POST", n.URL()+"/notify?token="+token, strings.Repeat(" ", 2<<20), referrer)
	raw(t, n.Addr, "GET /%zz?token="+token+" HTTP/1.1\r\nHost: a\r\n\r\n")
	log := n.AccessLog(t, " GET /metrics 404") + read(t, n.errorLog)
	for _, want := range []string{" GET /ws 502", " GET /events 502", " POST /notify 413"} {
		log += n.AccessLog(t, want)
	}
	if strings.Contains(log, token) || strings.Contains(log, "token=") {
		t.Errorf("a token is in nginx's logs:\n%s", log)
	}
}
