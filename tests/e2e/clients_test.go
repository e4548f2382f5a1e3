package e2e

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/internal/testing/gatewaytest"
	"herald/internal/testing/redistest"
)

// client is the part of a WebSocket library that these tests use.
type client interface {
	// next waits for the next text message. Its error is a closed once the
	// server has closed.
	next() (string, error)
	text(string) error
	// raw sends bytes as a text message, UTF-8 or not.
	raw([]byte) error
	binary([]byte) error
	// ping sends a protocol ping and waits for its pong.
	ping() error
	// leave closes with 1000 and waits until the server has answered.
	leave() error
	// drop closes the connection and releases all resources.
	drop()
}

// library makes clients of one WebSocket library.
type library struct {
	name  string
	dial  func(t *testing.T, url string, header map[string]string) client
	lacks map[string]string // behaviours that it cannot express, and why
}

var libraries = []library{
	{name: "coder", dial: dialCoder},
	{name: "nhooyr", dial: dialNhooyr},
	{name: "gorilla", dial: dialGorilla},
	{name: "node-ws", dial: dialNode},
}

// bench is the fixture of a behaviour.
type bench struct {
	client
	g      *gatewaytest.Gateway
	redis  *redis.Client
	user   string
	handle string // of the session that authenticated the client
}

type behaviour struct {
	name string
	try  func(t *testing.T, b *bench)
}

var behaviours = []behaviour{
	{"hello comes first", func(*testing.T, *bench) {}}, // open has checked it
	{"a notification arrives", receivesNotification},
	{"an ephemeral one has no id", receivesEphemeral},
	{"a plain PUBLISH of JSON arrives as ephemeral", receivesForeign},
	{"a PUBLISH of anything else is dropped", survivesGarbage},
	{"ping is answered by pong", func(t *testing.T, b *bench) { b.serves(t) }},
	{"an unknown frame is answered by error", getsError},
	{"ten bad frames close with 4003", closesOnMisuse},
	{"binary closes with 1003", func(t *testing.T, b *bench) { b.send(t, b.binary([]byte("{}"))); b.ends(t, 1003) }},
	{"4 KiB is accepted, more closes with 1009", closesOnSize},
	{"text that is not UTF-8 closes with 1007", func(t *testing.T, b *bench) { b.send(t, b.raw([]byte("\"\xff\xfe\""))); b.ends(t, 1007) }},
	{"revocation says bye and closes with 4002", closesOnRevocation},
	{"protocol pings are answered in both directions", pingsBothWays},
	{"the client can leave", leaves},
}

func TestClientLibraries(t *testing.T) {
	g, r := node(t, "HERALD_PING=1s")
	rdb := r.Client()
	t.Run("all", func(t *testing.T) {
		for _, l := range libraries {
			t.Run(l.name, func(t *testing.T) { tryAll(t, l, g, rdb) })
		}
	})
	eventually(t, "no connection is left", func() bool { return g.Metric("herald_connections") == 0 })
}

func tryAll(t *testing.T, l library, g *gatewaytest.Gateway, rdb *redis.Client) {
	t.Parallel()
	if l.name == "node-ws" {
		installNode(t)
	}
	for i, behave := range behaviours {
		t.Run(behave.name, func(t *testing.T) {
			t.Parallel()
			if why := l.lacks[behave.name]; why != "" {
				t.Skip(why)
			}
			behave.try(t, open(t, l, g.For(t), rdb, l.name+"-"+string(rune('a'+i))))
		})
	}
}

// open connects with a session and reads hello.
func open(t *testing.T, l library, g *gatewaytest.Gateway, rdb *redis.Client, user string) *bench {
	t.Helper()
	session := g.CreateSession(user)
	header := map[string]string{"Cookie": "sid=" + session.SessionID, "Origin": g.URL}
	b := &bench{g: g, redis: rdb, user: user, handle: session.Handle}
	b.client = l.dial(t, "ws"+strings.TrimPrefix(g.URL, "http")+"/ws", header)
	t.Cleanup(b.drop)
	if hello := b.frame(t); hello.Type != "hello" || hello.UserID != user || hello.ConnectionID == "" || hello.Ping != 1 {
		t.Fatalf("first frame: %s", hello.raw)
	}
	return b
}

func (b *bench) send(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("send: %v", err)
	}
}

func (b *bench) frame(t *testing.T) message {
	t.Helper()
	text, err := b.next()
	if err != nil {
		t.Fatalf("waiting for a frame: %v", err)
	}
	m := message{raw: text}
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatalf("frame %q: %v", text, err)
	}
	return m
}

// serves checks that the connection answers a ping and that no message came before the
// pong.
func (b *bench) serves(t *testing.T) {
	t.Helper()
	b.send(t, b.text(`{"type":"ping"}`))
	if m := b.frame(t); m.Type != "pong" {
		t.Fatalf("got %s, want pong", m.raw)
	}
}

// ends waits for the close and returns the frame before it, which must be a bye for the
// gateway's own codes.
func (b *bench) ends(t *testing.T, code int) {
	t.Helper()
	last := ""
	for {
		text, err := b.next()
		if err == nil {
			last = text
			continue
		}
		var c closed
		if !errors.As(err, &c) || c.code != code {
			t.Fatalf("%v, want close %d", err, code)
		}
		var bye message
		if code >= 4000 && (json.Unmarshal([]byte(last), &bye) != nil || bye.Type != "bye" || bye.Code != code) {
			t.Errorf("before close %d came %q, want a bye frame", code, last)
		}
		return
	}
}

func receivesNotification(t *testing.T, b *bench) {
	const sent = `{ "text":"grüße \ud800 \u0041", "n":1e400, "n":2 }`
	before := time.Now().Add(-time.Minute).UnixMilli()
	r := b.g.PublishBody(`{"userId":"` + b.user + `","type":"order.shipped","message":` + sent + `}`)
	m := b.frame(t)
	if m.Type != "notification" || m.ID != r.ID || string(m.Message) != sent || m.Kind != "order.shipped" || m.TS < before {
		t.Errorf("receipt %+v, frame %s", r, m.raw)
	}
}

func receivesEphemeral(t *testing.T, b *bench) {
	if r := b.g.PublishBody(`{"userId":"` + b.user + `","message":[1],"ephemeral":true}`); r.ID != 0 {
		t.Errorf("an ephemeral notification has the id %d", r.ID)
	}
	b.isEphemeral(t, "[1]")
}

func (b *bench) isEphemeral(t *testing.T, want string) {
	t.Helper()
	m := b.frame(t)
	if m.Type != "notification" || strings.Contains(m.raw, `"id"`) || string(m.Message) != want {
		t.Errorf("got %s, want an ephemeral notification of %s", m.raw, want)
	}
}

func receivesForeign(t *testing.T, b *bench) {
	for _, payload := range []string{`{"any":"json"}`, `"text"`, `17`, `{"type":"bye","code":4002}`, `{"type":"notification","message":1}`} {
		b.publish(t, payload)
		b.isEphemeral(t, payload)
	}
}

func (b *bench) publish(t *testing.T, payload string) {
	t.Helper()
	if n, err := b.redis.Publish(t.Context(), "user:"+b.user+":events", payload).Result(); err != nil || n != 1 {
		t.Fatalf("PUBLISH: %d receivers, %v", n, err)
	}
}

func survivesGarbage(t *testing.T, b *bench) {
	for _, payload := range []string{"", "not JSON", "{", `{"a":1} x`, "\"\xff\"", "NaN", "\x00"} {
		b.publish(t, payload)
	}
	b.publish(t, `"after"`)
	b.isEphemeral(t, `"after"`)
	b.serves(t)
}

func getsError(t *testing.T, b *bench) {
	b.send(t, b.text(`{"type":"subscribe"}`))
	if m := b.frame(t); m.Type != "error" || m.Error == "" {
		t.Errorf("got %s, want an error frame", m.raw)
	}
	b.serves(t)
}

func closesOnMisuse(t *testing.T, b *bench) {
	bad := []string{"", "x", "null", "[]", "{}", `{"type":1}`, `{"type":"Ping"}`, `{"type":"read"}`, `{"type":"read","upTo":"1"}`}
	for _, text := range bad {
		b.send(t, b.text(text))
		if m := b.frame(t); m.Type != "error" {
			t.Fatalf("%q was answered by %s", text, m.raw)
		}
	}
	b.serves(t) // nine are forgiven
	b.send(t, b.text(`{"type":"token"}`))
	b.ends(t, 4003)
}

func closesOnSize(t *testing.T, b *bench) {
	fits := `{"type":"ping","padding":"` + strings.Repeat("x", 4096-28) + `"}`
	if len(fits) != 4096 {
		t.Fatalf("the test's frame has %d bytes", len(fits))
	}
	b.send(t, b.text(fits))
	if m := b.frame(t); m.Type != "pong" {
		t.Fatalf("4096 bytes were answered by %s", m.raw)
	}
	b.send(t, b.text(fits+" "))
	b.ends(t, 1009)
}

func closesOnRevocation(t *testing.T, b *bench) {
	if a := b.g.Backend("DELETE", "/sessions/"+b.handle, ""); a.Status/100 != 2 {
		t.Fatalf("revoke: %d %s", a.Status, a.Body)
	}
	b.ends(t, 4002)
}

// pingsBothWays waits for several of the server's pings, which the library answers. The
// server closes a silent peer after 2.5 of them.
func pingsBothWays(t *testing.T, b *bench) {
	for until := time.Now().Add(4 * time.Second); time.Now().Before(until); {
		if err := b.ping(); err != nil {
			t.Fatalf("ping: %v", err)
		}
		time.Sleep(3 * time.Second) // the server's pings are all that is said meanwhile
	}
	b.serves(t)
}

func leaves(t *testing.T, b *bench) {
	if err := b.leave(); err != nil {
		t.Fatalf("leave: %v", err)
	}
}

// installNode installs the one dependency of node/client.mjs, as locked, unless
// it is there.
func installNode(t *testing.T) {
	t.Helper()
	redistest.Require(t, "node")
	redistest.Require(t, "npm")
	nodeOnce.Do(func() { nodeErr = npmCI() })
	if nodeErr != nil {
		redistest.Missing(t, nodeErr.Error())
	}
}
