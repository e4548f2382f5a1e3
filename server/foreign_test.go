package server

import (
	"context"
	"testing"
	"time"

	"github.com/coder/websocket"

	"herald/notify"
)

func withForeign(found func(*testServer)) func(*testOptions) {
	return func(p *testOptions) { p.found = found }
}

// sessionKey and sessionCookie name a session as the program that stores it does.
const (
	sessionKey    = "session:session-of-42"
	sessionCookie = "sid=session-of-42"
)

func (h *testServer) keepSession(key, user string) {
	h.t.Helper()
	if err := h.redis.Set(key, `{"userId":"`+user+`"}`); err != nil {
		h.t.Fatal(err)
	}
	h.redis.SetTTL(key, time.Hour)
}

// sessionEvent passes a keyspace notification on, as cmd/gateway does.
func (h *testServer) sessionEvent(key, event string) {
	if handle, ok := h.foreign.Changed("__keyspace@0__:"+key, event); ok {
		h.Streams.SessionChanged(handle, h.foreign.Users(handle))
	}
}

// wantClose reads until the connection ends, and checks its close code.
func (c *wsClient) wantClose(code notify.CloseCode) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 20*time.Second) // the next tick is later
	defer cancel()
	for {
		if _, _, err := c.Read(ctx); err != nil {
			if got := websocket.CloseStatus(err); int(got) != int(code) {
				c.t.Errorf("closed with %v (%v), want %d", got, err, code)
			}
			return
		}
	}
}

func (c *wsClient) wantType(want string) {
	c.t.Helper()
	if f := c.next(); f.Type != want {
		c.t.Fatalf("got %s, want a %s frame", f.short(), want)
	}
}

// The session ends after its lookup and before the join, when its event finds no socket. So
// the join looks it up again.
func TestForeignSessionEndsBeforeTheJoin(t *testing.T) {
	h := newTestServer(t, withForeign(func(h *testServer) {
		h.redis.Del(sessionKey)
		h.sessionEvent(sessionKey, "del")
	}))
	h.keepSession(sessionKey, "42")
	h.connectWith(sessionCookie, "").wantClose(notify.CloseRevoked)
}

// An event causes a lookup. It is not trusted by itself.
func TestForeignSessionEvents(t *testing.T) {
	h := newTestServer(t, withForeign(func(*testServer) {}))
	h.keepSession(sessionKey, "42")
	h.keepSession("session:session-of-43", "43")
	a, b := h.connectWith(sessionCookie, ""), h.connectWith(sessionCookie, "")
	other := h.connectWith("sid=session-of-43", "")
	for _, c := range []*wsClient{a, b, other} {
		c.wantType("hello")
	}
	tell := func(event string) { h.sessionEvent(sessionKey, event) }
	tell("del") // the session still exists
	h.sessionEvent("session:never-used", "del")
	h.publish("42", `1`)
	a.wantType("notification")
	b.wantType("notification")
	h.keepSession(sessionKey, "43")
	tell("set")
	a.wantClose(notify.CloseRevoked)
	b.wantClose(notify.CloseRevoked)
	h.publish("43", `1`)
	other.wantType("notification")
}
