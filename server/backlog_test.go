package server

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"herald/internal/testing/redistest"
	"herald/notify"
)

// backlog is the number of missed notifications.
const backlog = 5000

// publishBacklog stores the backlog and returns the id before it.
func (h *testServer) publishBacklog(user string) notify.ID {
	h.t.Helper()
	before := h.publish(user, `"before"`)
	const batch = 250 // miniredis under the race detector is slow, and a publish has a budget
	for n := 0; n < backlog; n += batch {
		items := make([]string, batch)
		for i := range items {
			items[i] = fmt.Sprintf(`{"userId":%q,"message":{"n":%d,"pad":%q}}`, user, n+i, strings.Repeat("x", 170))
		}
		resp, body := h.request("POST", "/notify/batch", `{"notifications":[`+strings.Join(items, ",")+`]}`)
		if resp.StatusCode != 200 || strings.Contains(body, `"ok":false`) {
			h.t.Fatalf("%s %.200s", resp.Status, body)
		}
	}
	return before
}

func (c *wsClient) readBacklog(hello string) {
	c.t.Helper()
	c.expect(hello)
	for n := range backlog {
		if got, want := c.next().short(), fmt.Sprintf(`{"n":%d,`, n); !strings.HasPrefix(got, want) {
			c.t.Fatalf("got %.60s, want %s", got, want)
		}
	}
}

// A client that was away gets every notification in order, though they are many times its
// socket's queue.
func TestBacklog(t *testing.T) {
	h := newTestServer(t, withLog(2*backlog))
	since := h.publishBacklog("42")
	s, err := h.Broker.State(t.Context(), "42")
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	h.connect("42", fmt.Sprint("?since=", since)).readBacklog(fmt.Sprintf("hello %d %d", s.Last, backlog+1))
	t.Logf("%d missed notifications in %v", backlog, time.Since(began))
}

// BenchmarkBacklog measures from the dial to the last missed notification, on a real Redis.
func BenchmarkBacklog(b *testing.B) {
	h := newTestServer(b, withLog(2*backlog), withRedis(redistest.Start(b).Addr))
	since := h.publishBacklog("42")
	s, err := h.Broker.State(b.Context(), "42")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		c := h.connect("42", fmt.Sprint("?since=", since))
		c.readBacklog(fmt.Sprintf("hello %d %d", s.Last, backlog+1))
		_ = c.CloseNow()
	}
}
