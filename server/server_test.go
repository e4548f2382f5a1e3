package server

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/coder/websocket"
	"github.com/gofiber/fiber/v2"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"herald/auth"
	"herald/broker"
	"herald/hub"
	"herald/internal/redisinfo"
	"herald/internal/redisx"
	"herald/internal/schedule"
	"herald/limiter"
	"herald/notify"
	"herald/patterns/idempotent"
	"herald/presence"
	"herald/publishing"
	"herald/sessions"
	"herald/sessions/foreign"
	"herald/stream"
)

func TestMain(m *testing.M) {
	// fasthttp's worker pool notices a stop only every ten seconds, and a goroutine keeps its
	// Date header until the process exits.
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"))
}

// testServer is a complete node on miniredis, in the process of the test.
type testServer struct {
	*Server
	t       testing.TB
	url     string
	redis   *miniredis.Miniredis
	store   *sessions.Store
	foreign *foreign.Store // nil: sessions are in store
}

const secret = "0123456789abcdef"

// testOptions configure a testServer.
type testOptions struct {
	log    int               // length of a log; default 5
	budget time.Duration     // of a call to Redis; default more than a busy machine needs
	redis  string            // address of a Redis; default miniredis
	routes func(*Server)     // further routes
	plain  bool              // no event loops
	found  func(*testServer) // not nil: sessions are another program's (JSON); called when one was found
}

func withLog(n int) func(*testOptions)              { return func(p *testOptions) { p.log = n } }
func withRedis(addr string) func(*testOptions)      { return func(p *testOptions) { p.redis = addr } }
func withBudget(d time.Duration) func(*testOptions) { return func(p *testOptions) { p.budget = d } }
func withRoutes(f func(*Server)) func(*testOptions) { return func(p *testOptions) { p.routes = f } }

// eachWay runs a test with event loops, and with a goroutine for each connection.
func eachWay(t *testing.T, test func(t *testing.T, way func(*testOptions))) {
	for name, plain := range map[string]bool{"loops": false, "plain": true} {
		t.Run(name, func(t *testing.T) { test(t, func(p *testOptions) { p.plain = plain }) })
	}
}

func newTestServer(t testing.TB, changes ...func(*testOptions)) *testServer {
	t.Helper()
	p := testOptions{log: 5, budget: 30 * time.Second, routes: func(*Server) {}}
	for _, change := range changes {
		change(&p)
	}
	var m *miniredis.Miniredis
	if p.redis == "" {
		m = miniredis.RunT(t)
		m.ClockTTL(true)
		p.redis = m.Addr()
	}
	o := redisx.Configure(&redis.Options{Addr: p.redis}, p.budget)
	rdb, sub := redis.NewClient(o), broker.NewSubscriber(o)
	keys, err := auth.ParseAPIKeys("shop:" + secret)
	if err != nil {
		t.Fatal(err)
	}
	tokens := auth.NewVerifier(&auth.JWTKeys{}, auth.VerifierOptions{})
	store := sessions.New(rdb, sessions.Options{Budget: p.budget})
	use := func(ctx context.Context, id string) (auth.Session, error) {
		s, err := store.Use(ctx, id)
		return auth.Session{UserID: s.UserID, Handle: s.Handle, Expires: s.ExpiresAt}, err
	}
	h := &testServer{t: t, redis: m, store: store}
	var kept stream.Sessions = store
	if p.found != nil {
		other := foreign.New(rdb, foreign.JSON, foreign.Options{Budget: p.budget})
		kept, h.foreign = other, other
		use = func(ctx context.Context, cookie string) (auth.Session, error) {
			s, err := other.Use(ctx, cookie)
			p.found(h)
			return auth.Session{UserID: s.UserID, Handle: s.Handle, Expires: s.ExpiresAt}, err
		}
	}
	b := broker.New(rdb, broker.Options{LogLength: p.log, Budget: p.budget})
	var repairer *broker.Repairer
	hb := hub.New(hub.Options{
		OnGap:    func(id string) { repairer.User(id) },
		OnExpiry: func(s *hub.Socket) { h.Streams.Expired(s) },
	})
	repairer = broker.NewRepairer(b, hb)
	limits := limiter.New(rdb, "publish", limiter.Limit{}, limiter.Options{})
	scheduler := schedule.New(rdb, "node", nil, schedule.Options{Budget: p.budget})
	h.Server, err = New(Deps{
		Hub: hb, Broker: b, Sessions: kept, Tokens: tokens,
		Auth:     auth.NewAuthenticator(keys, tokens, use, use),
		Connect:  limiter.New(rdb, "connect", limiter.Limit{}, limiter.Options{}),
		Presence: presence.New(rdb, "node", hb, presence.Options{}),
		Schedule: scheduler,
		Publisher: &publishing.Publisher{
			Broker: b, Limit: limits, Schedule: scheduler,
			Idempotency: func(client string) *idempotent.Processor {
				return idempotent.New(rdb, client, idempotent.Options{Budget: p.budget})
			},
		},
		Redis: redisinfo.NewSampler(rdb, redisinfo.Options{Budget: p.budget}),
	}, Options{Plain: p.plain})
	if err != nil {
		t.Fatal(err)
	}
	p.routes(h.Server)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.url = "http://" + l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 4)
	background := []func(){
		func() { _ = h.Serve(l) },
		func() { h.Streams.Run(ctx) },
		func() { repairer.Run(ctx) },
		func() {
			cork := hb.NewCork()
			b.Listen(ctx, sub, broker.Handlers{
				Deliver: cork.Deliver, Idle: cork.Uncork, Subscribed: repairer.All,
				Channels: map[string]func(string){sessions.RevokedChannel: func(p string) {
					if r, err := sessions.ParseRevocation(p); err == nil {
						hb.Revoke(r.UserID, r.Handles)
					}
				}},
			})
		},
	}
	for _, f := range background {
		go func() { f(); done <- struct{}{} }()
	}
	t.Cleanup(func() {
		hb.Drain(context.Background(), 3*time.Second)
		if err := h.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		cancel()
		for range background {
			<-done
		}
		hb.Close()
		_ = rdb.Close()
		_ = sub.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	for !b.Hears() {
		time.Sleep(time.Millisecond)
	}
	return h
}

// request sends a request and returns the answer and its body.
func (h *testServer) request(method, path, body string, header ...string) (*http.Response, string) {
	h.t.Helper()
	r, err := http.NewRequestWithContext(h.t.Context(), method, h.url+path, strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+secret)
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		if header[i+1] == "" {
			r.Header.Del(header[i])
		} else {
			r.Header.Set(header[i], header[i+1])
		}
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return resp, string(b)
}

func (h *testServer) publish(user, message string) notify.ID {
	h.t.Helper()
	resp, body := h.request("POST", "/notify", fmt.Sprintf(`{"userId":%q,"message":%s}`, user, message))
	var answer struct{ ID notify.ID }
	if err := json.Unmarshal([]byte(body), &answer); err != nil || resp.StatusCode != 200 {
		h.t.Fatalf("publish: %s %s", resp.Status, body)
	}
	return answer.ID
}

// cookie logs the user in.
func (h *testServer) cookie(user string) string {
	h.t.Helper()
	id, _, err := h.store.Create(h.t.Context(), user, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	return "sid=" + id
}

// wsClient reads a WebSocket stream.
type wsClient struct {
	t testing.TB
	*websocket.Conn
}

func (h *testServer) connect(user, query string) *wsClient {
	h.t.Helper()
	return h.connectWith(h.cookie(user), query)
}

func (h *testServer) connectWith(cookie, query string) *wsClient {
	h.t.Helper()
	header := http.Header{"Cookie": {cookie}, "Origin": {h.url}}
	c, _, err := websocket.Dial(h.t.Context(), h.url+"/ws"+query, &websocket.DialOptions{HTTPHeader: header})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = c.CloseNow() })
	return &wsClient{h.t, c}
}

type frame struct {
	Type                       string
	ID, Prev, After, Next      notify.ID
	Last, Read, UpTo           notify.ID
	Unread, Code, RetryAfterMs int
	Message                    json.RawMessage
}

func (c *wsClient) next() (f frame) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 20*time.Second)
	defer cancel()
	_, data, err := c.Read(ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := json.Unmarshal(data, &f); err != nil {
		c.t.Fatalf("%v: %s", err, data)
	}
	return f
}

// expect reads frames and compares each with its short form.
func (c *wsClient) expect(want ...string) {
	c.t.Helper()
	for _, w := range want {
		if got := c.next().short(); got != w {
			c.t.Fatalf("got %s, want %s", got, w)
		}
	}
}

func (f frame) short() string {
	switch f.Type {
	case "notification":
		return string(f.Message)
	case "gap":
		return fmt.Sprintf("gap %d %d", f.After, f.Next)
	case "hello":
		return fmt.Sprintf("hello %d %d", f.Last, f.Unread)
	case "read":
		return fmt.Sprintf("read %d %d", f.UpTo, f.Unread)
	}
	return f.Type
}

func TestResume(t *testing.T) { eachWay(t, testResume) }

func testResume(t *testing.T, way func(*testOptions)) {
	h := newTestServer(t, way)
	h.connect("42", "?since=0").expect("hello 0 0")
	var ids []notify.ID
	for i := range 7 { // the log keeps 5
		ids = append(ids, h.publish("42", fmt.Sprint(i)))
	}
	last := ids[6]
	hello := fmt.Sprintf("hello %d 5", last)
	gap := func(after, next notify.ID) string { return fmt.Sprintf("gap %d %d", after, next) }
	for name, c := range map[string]struct {
		query string
		want  []string
	}{
		"live only":        {"", []string{hello}},
		"up to date":       {fmt.Sprint("?since=", last), []string{hello}},
		"two missed":       {fmt.Sprint("?since=", ids[4]), []string{hello, "5", "6"}},
		"Last-Event-ID":    {fmt.Sprint("?lastEventId=", ids[5]), []string{hello, "6"}},
		"just in the log":  {fmt.Sprint("?since=", ids[1]), []string{hello, "2", "3", "4", "5", "6"}},
		"trimmed":          {fmt.Sprint("?since=", ids[0]), []string{hello, gap(ids[0], ids[2]), "2", "3", "4", "5", "6"}},
		"from the start":   {"?since=0", []string{hello, gap(0, ids[2]), "2", "3", "4", "5", "6"}},
		"between two ids":  {fmt.Sprint("?since=", ids[4]-1), []string{hello}},
		"in the future":    {fmt.Sprint("?since=", last+1_000_000), []string{hello, gap(last+1_000_000, 0)}},
		"as far as can be": {fmt.Sprint("?since=", notify.MaxID), []string{hello, gap(notify.MaxID, 0)}},
	} {
		if name == "between two ids" && ids[4]-1 == ids[3] {
			continue // published within a millisecond: there is nothing between
		}
		if name == "between two ids" {
			c.want = append(c.want, gap(ids[4]-1, ids[4]), "4", "5", "6")
		}
		t.Run(name, func(t *testing.T) {
			client := h.connect("42", c.query)
			client.t = t
			client.expect(c.want...)
		})
	}
	live := h.connect("42", fmt.Sprint("?since=", ids[5]))
	live.expect(hello, "6")
	h.publish("42", `"live"`)
	live.expect(`"live"`)

	h.redis.Del("user:{42}:log") // lost, but the state knows that there was something
	h.connect("42", fmt.Sprint("?since=", ids[5])).expect(fmt.Sprintf("hello %d 0", live.lastID(h)), gap(ids[5], 0))
	h.redis.FlushAll() // a Redis without persistence was restarted
	h.connect("42", fmt.Sprint("?since=", ids[5])).expect("hello 0 0", gap(ids[5], 0))
}

// lastID asks for the user's newest id.
func (c *wsClient) lastID(h *testServer) notify.ID {
	s, err := h.Broker.State(c.t.Context(), "42")
	if err != nil {
		c.t.Fatal(err)
	}
	return s.Last
}

func TestResumeThroughAFullQueue(t *testing.T) { eachWay(t, testResumeThroughAFullQueue) }

func testResumeThroughAFullQueue(t *testing.T, way func(*testOptions)) {
	h := newTestServer(t, way)
	blob := `"` + strings.Repeat("x", 60_000) + `"`
	for range 5 {
		h.publish("42", blob)
	}
	c := h.connect("42", "?since=0")
	c.SetReadLimit(-1)
	c.next()
	for range 5 {
		if got := c.next().short(); got != blob {
			t.Fatalf("got %.40s", got)
		}
	}
}

func TestRead(t *testing.T) { eachWay(t, testRead) }

func testRead(t *testing.T, way func(*testOptions)) {
	h := newTestServer(t, way)
	first, second := h.publish("42", "1"), h.publish("42", "2")
	phone, laptop := h.connect("42", ""), h.connect("42", "")
	phone.expect(fmt.Sprintf("hello %d 2", second))
	laptop.expect(fmt.Sprintf("hello %d 2", second))
	write := func(format string, args ...any) {
		t.Helper()
		if err := phone.Write(t.Context(), websocket.MessageText, fmt.Appendf(nil, format, args...)); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"type":"read","upTo":%d}`, first)
	phone.expect(fmt.Sprintf("read %d 1", first))
	laptop.expect(fmt.Sprintf("read %d 1", first))
	write(`{"type":"read","upTo":0}`) // stale: told only to who asked
	phone.expect(fmt.Sprintf("read %d 1", first))

	cookie := h.cookie("42")
	resp, body := h.request("GET", "/inbox?limit=1", "", "Authorization", "", "Cookie", cookie)
	if want := fmt.Sprintf(`"last":%d,"read":%d,"unread":1,"next":%d}`, second, first, first); !strings.HasSuffix(body, want) {
		t.Errorf("%s %s, want …%s", resp.Status, body, want)
	}
	_, body = h.request("GET", fmt.Sprint("/inbox?after=", first), "", "Authorization", "", "Cookie", cookie)
	if !strings.Contains(body, `"message":2}],`) || !strings.HasSuffix(body, `"next":null}`) {
		t.Errorf("second page %s", body)
	}
	for _, bad := range []string{"/inbox?limit=101", "/inbox?limit=0", "/inbox?after=x"} {
		if resp, body := h.request("GET", bad, "", "Authorization", "", "Cookie", cookie); resp.StatusCode != 400 {
			t.Errorf("%s: %s %s", bad, resp.Status, body)
		}
	}
	resp, body = h.request("POST", "/inbox/read", fmt.Sprintf(`{"upTo":%d}`, second), "Authorization", "", "Cookie", cookie, "Origin", h.url)
	if want := fmt.Sprintf(`{"read":%d,"unread":0}`, second); body != want {
		t.Errorf("%s %s, want %s", resp.Status, body, want)
	}
	laptop.expect(fmt.Sprintf("read %d 0", second))
	if resp, _ := h.request("POST", "/inbox/read", `{"upTo":1}`, "Authorization", "", "Cookie", cookie); resp.StatusCode != 403 {
		t.Errorf("by cookie without Origin: %s", resp.Status)
	}
}

// eventReader reads server-sent events.
type eventReader struct {
	t testing.TB
	*bufio.Reader
	resp *http.Response
}

func (h *testServer) events(cookie string, header ...string) *eventReader {
	h.t.Helper()
	r, _ := http.NewRequestWithContext(h.t.Context(), "GET", h.url+"/events", nil)
	r.Header.Set("Cookie", cookie)
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = resp.Body.Close() })
	return &eventReader{h.t, bufio.NewReader(resp.Body), resp}
}

// next returns one event's lines, joined by |.
func (e *eventReader) next() string {
	e.t.Helper()
	var lines []string
	for {
		line, err := e.ReadString('\n')
		if err != nil {
			e.t.Fatalf("%v after %q", err, lines)
		}
		if line = strings.TrimSuffix(line, "\n"); line == "" {
			return strings.Join(lines, "|")
		}
		lines = append(lines, line)
	}
}

func (e *eventReader) expect(parts ...string) {
	e.t.Helper()
	got := e.next()
	for _, p := range parts {
		if !strings.Contains(got, p) {
			e.t.Errorf("event %s lacks %s", got, p)
		}
	}
}

func TestEvents(t *testing.T) { eachWay(t, testEvents) }

func testEvents(t *testing.T, way func(*testOptions)) {
	h := newTestServer(t, way)
	first := h.publish("42", "1")
	second := h.publish("42", "{\n\"a\":\r\n2}")
	cookie := h.cookie("42")
	e := h.events(cookie, "Last-Event-ID", fmt.Sprint(first))
	if ct, buffering := e.resp.Header.Get("Content-Type"), e.resp.Header.Get("X-Accel-Buffering"); ct != "text/event-stream" || buffering != "no" {
		t.Errorf("head %v", e.resp.Header)
	}
	e.expect("event: hello|", fmt.Sprintf("id: %d|", first), `data: {"type":"hello","userId":"42"`)
	e.expect("event: notification|", fmt.Sprintf("id: %d|", second), "\"message\":{|data: \"a\":|data: 2}}")
	third := h.publish("42", "3")
	e.expect(fmt.Sprintf("id: %d|", third), `"message":3}`)
	if err := h.store.Revoke(t.Context(), sessions.Handle(strings.TrimPrefix(cookie, "sid="))); err != nil {
		t.Fatal(err)
	}
	e.expect("event: bye|", `"code":4002`)
	if rest, err := io.ReadAll(e); err != nil || len(rest) > 0 {
		t.Errorf("after bye: %q, %v", rest, err)
	}

	r, _ := http.NewRequestWithContext(t.Context(), "GET", h.url+"/events", nil)
	r.Header.Set("Cookie", h.cookie("42"))
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != 403 {
		t.Errorf("by cookie without Origin or Sec-Fetch-Site: %s", resp.Status)
	}
}

func TestPanicCostsOnlyItsOwn(t *testing.T) {
	h := newTestServer(t, withRoutes(func(s *Server) {
		s.app.Get("/panic", func(*fiber.Ctx) error { panic("in a handler") })
		s.app.Get("/panic/stream", func(c *fiber.Ctx) error {
			s.hijack(c, func(net.Conn, []byte) { panic("in a stream") })
			return nil
		})
	}))
	c := h.connect("42", "")
	c.next()
	resp, body := h.request("GET", "/panic", "")
	if resp.StatusCode != 500 || strings.Contains(body, "in a handler") {
		t.Errorf("%s %s", resp.Status, body)
	}
	u, _ := url.Parse(h.url)
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /panic/stream HTTP/1.1\r\nHost: x\r\n\r\n")
	if b, err := io.ReadAll(conn); err != nil || len(b) > 0 {
		t.Errorf("stream: %q, %v", b, err)
	}
	h.publish("42", `"still here"`)
	c.expect(`"still here"`)
	await(t, "two panics counted", func() bool { return h.panics.Load() == 2 })
}

func TestIdempotencyOverHTTP(t *testing.T) {
	h := newTestServer(t)
	const one = `{"userId":"42","message":1}`
	resp, first := h.request("POST", "/notify", one, "Idempotency-Key", `"k 1"`)
	if resp.StatusCode != 200 || resp.Header.Get("Idempotency-Replay") != "" {
		t.Fatalf("%s %s", resp.Status, first)
	}
	resp, again := h.request("POST", "/notify", one, "Idempotency-Key", `k 1`)
	if again != first || resp.Header.Get("Idempotency-Replay") != "true" {
		t.Errorf("%s %s after %s", resp.Status, again, first)
	}
	if resp, body := h.request("POST", "/notify", `{"userId":"42","message":2}`, "Idempotency-Key", `k 1`); resp.StatusCode != 422 {
		t.Errorf("another body: %s %s", resp.Status, body)
	}
	if resp, body := h.request("POST", "/notify", one, "Idempotency-Key", strings.Repeat("x", 256)); resp.StatusCode != 400 {
		t.Errorf("long key: %s %s", resp.Status, body)
	}
	const batch = `{"notifications":[{"userId":"7","message":1},{"userId":"*","message":1},{"userIds":["8","9"],"message":1}]}`
	_, first = h.request("POST", "/notify/batch", batch, "Idempotency-Key", `k 2`)
	resp, again = h.request("POST", "/notify/batch", batch, "Idempotency-Key", `k 2`)
	if again != first || resp.Header.Get("Idempotency-Replay") != "true" || !strings.Contains(first, `"ok":false,"error":"notifications[1].userId`) {
		t.Errorf("batch %s %s after %s", resp.Status, again, first)
	}
}

func TestCORS(t *testing.T) {
	h := newTestServer(t)
	resp, _ := h.request("OPTIONS", "/inbox/read", "", "Origin", h.url, "Access-Control-Request-Method", "POST")
	if resp.StatusCode != 204 || resp.Header.Get("Access-Control-Allow-Origin") != h.url || resp.Header.Get("Access-Control-Allow-Credentials") != "true" {
		t.Errorf("allowed site: %s %v", resp.Status, resp.Header)
	}
	resp, _ = h.request("OPTIONS", "/inbox/read", "", "Origin", "https://evil.example", "Access-Control-Request-Method", "POST")
	if resp.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("foreign site: %v", resp.Header)
	}
	if resp, _ := h.request("OPTIONS", "/notify", "", "Origin", h.url); resp.StatusCode != 405 {
		t.Errorf("a path for backends: %s", resp.Status)
	}
}

func TestSelfIsByTrustedProxiesOnly(t *testing.T) {
	h := newTestServer(t)
	secure := strings.Replace(h.url, "http:", "https:", 1)
	cookie := h.cookie("42")
	read := func() int {
		resp, _ := h.request("POST", "/inbox/read", `{"upTo":0}`, "Authorization", "", "Cookie", cookie, "Origin", secure, "X-Forwarded-Proto", "https")
		return resp.StatusCode
	}
	if got := read(); got != 403 {
		t.Errorf("an untrusted X-Forwarded-Proto: %d", got)
	}
	h.o.TrustedProxies, _ = limiter.ParsePrefixes("127.0.0.0/8")
	if got := read(); got != 200 {
		t.Errorf("the proxy's X-Forwarded-Proto: %d", got)
	}
}

// TestClientThatNeverReads is closed with 4102, once, and delays no other client.
func TestClientThatNeverReads(t *testing.T) { eachWay(t, testClientThatNeverReads) }

func testClientThatNeverReads(t *testing.T, way func(*testOptions)) {
	h := newTestServer(t, way, withLog(1000))
	good := h.connect("42", "")
	good.SetReadLimit(-1)
	good.next()
	u, _ := url.Parse(h.url)
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.(*net.TCPConn).SetReadBuffer(4096)
	fmt.Fprintf(conn, "GET /ws HTTP/1.1\r\nHost: %s\r\nOrigin: %s\r\nCookie: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", u.Host, h.url, h.cookie("42"))
	await(t, "the second connection", func() bool { n, _ := h.Hub.Count(); return n == 2 })
	blob := `"` + strings.Repeat("x", 60_000) + `"`
	for h.Hub.Stats().Closed[notify.CloseTooSlow] == 0 {
		h.publish("42", blob)
		if got := good.next().short(); got != blob {
			t.Fatalf("got %.60s", got)
		}
	}
	await(t, "the end of the slow one", func() bool { n, _ := h.Hub.Count(); return n == 1 })
	h.publish("42", `"after"`)
	good.expect(`"after"`)
}

func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited 20 s for ", what)
		}
	}
}

// After a failed upgrade a browser asks by fetch for the reason. A fetch to the page's own
// site has no Origin.
func TestProbe(t *testing.T) {
	h := newTestServer(t)
	cookie := h.cookie("42")
	probe := func(header ...string) int {
		resp, _ := h.request("GET", "/ws", "", append([]string{"Authorization", ""}, header...)...)
		return resp.StatusCode
	}
	if got := probe("Cookie", cookie, "Sec-Fetch-Site", "same-origin"); got != 426 {
		t.Errorf("from our own site: %d", got)
	}
	if got := probe("Cookie", cookie); got != 403 {
		t.Errorf("from an unknown site: %d", got)
	}
	if got := probe("Cookie", cookie, "Sec-Fetch-Site", "same-origin", "Upgrade", "websocket"); got != 403 {
		t.Errorf("an upgrade without Origin: %d", got)
	}
	if got := probe(); got != 401 {
		t.Errorf("without credentials: %d", got)
	}
}

// The head of the answer and hello are one write.
func TestHelloComesWithTheHead(t *testing.T) { eachWay(t, testHelloComesWithTheHead) }

func testHelloComesWithTheHead(t *testing.T, change func(*testOptions)) {
	h := newTestServer(t, change)
	u, _ := url.Parse(h.url)
	for request, hello := range map[string]string{
		"GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n": `{"type":"hello"`,
		"GET /events HTTP/1.1\r\n": "event: hello\n",
	} {
		conn, err := net.Dial("tcp", u.Host)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "%sHost: %s\r\nOrigin: %s\r\nCookie: %s\r\n\r\n", request, u.Host, h.url, h.cookie("42"))
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		b := make([]byte, 64<<10)
		n, err := conn.Read(b) // of what came first
		if head, body, _ := strings.Cut(string(b[:n]), "\r\n\r\n"); err != nil || !strings.Contains(body, hello) {
			t.Errorf("first came %q, %q, %v", head, body, err)
		}
		_ = conn.Close()
	}
}

// outOfFiles is a listener whose first Accepts fail with EMFILE.
type outOfFiles struct {
	net.Listener
	failures int
}

func (l *outOfFiles) Accept() (net.Conn, error) {
	if l.failures--; l.failures >= 0 {
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	c, _ := net.Pipe()
	return c, nil
}

func TestAcceptSurvivesRunningOutOfFiles(t *testing.T) {
	l := patient{&outOfFiles{failures: 3}, slog.New(slog.DiscardHandler), &redisx.Throttle{}}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

// TestLargeBodyIsRefusedByItsHead: a large body is refused by its head, before
// memory is allocated for it.
func TestLargeBodyIsRefusedByItsHead(t *testing.T) {
	h := newTestServer(t)
	u, _ := url.Parse(h.url)
	for header, want := range map[string]string{
		"":                                " 413 ",
		"Authorization: Bearer wrong\r\n": " 413 ",
		"Authorization: Bearer " + secret + "\r\n": "", // waits for the body
	} {
		conn, err := net.Dial("tcp", u.Host)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "POST /notify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%sContent-Length: 1000000\r\n\r\n", header)
		wait := 20 * time.Second
		if want == "" {
			wait = 200 * time.Millisecond
		}
		_ = conn.SetReadDeadline(time.Now().Add(wait))
		line, _ := bufio.NewReader(conn).ReadString('\n')
		if !strings.Contains(line, want) || want == "" && line != "" {
			t.Errorf("%q: answered %q, want %q", header, line, want)
		}
		_ = conn.Close()
	}
	blob := `"` + strings.Repeat("x", 60_000) + `"`
	users := make([]string, 200)
	for i := range users {
		users[i] = fmt.Sprintf("%q", fmt.Sprint("u", i))
	}
	resp, body := h.request("POST", "/notify", `{"userIds":[`+strings.Join(users, ",")+`],"message":`+blob+`}`)
	if resp.StatusCode != 413 {
		t.Errorf("12 MB to announce: %s %s", resp.Status, body)
	}
}
