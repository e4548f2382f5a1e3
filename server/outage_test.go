package server

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"herald/internal/testing/redistest"
)

// While Redis hangs, publishes and logins are refused and open streams stay open. No
// goroutines accumulate, and a refused publish is never delivered.
func TestOutage(t *testing.T) {
	srv := redistest.Start(t)
	h := newTestServer(t, withRedis(srv.Addr), withLog(100), withBudget(400*time.Millisecond))
	c := h.connect("42", "")
	c.next()
	cookie := h.cookie("42")
	h.publish("42", `"before"`)
	c.expect(`"before"`)
	calm := busy()

	srv.Stop()
	var wg sync.WaitGroup
	for range 300 {
		wg.Go(func() {
			r, _ := http.NewRequestWithContext(t.Context(), "POST", h.url+"/notify", strings.NewReader(`{"userId":"42","message":"during"}`))
			r.Header.Set("Authorization", "Bearer "+secret)
			r.Header.Set("Content-Type", "application/json")
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Error(err)
				return
			}
			_ = resp.Body.Close()
			if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
				t.Errorf("publish: %s", resp.Status)
			}
		})
	}
	wg.Wait()
	if resp, body := h.request("GET", "/inbox", "", "Authorization", "", "Cookie", cookie); resp.StatusCode != 503 {
		t.Errorf("by cookie: %s %s", resp.Status, body)
	}
	await(t, fmt.Sprint("no more goroutines than the ", calm, " before, and a few"), func() bool { return busy() < calm+10 })

	srv.Continue()
	await(t, "readiness", h.Broker.Hears)
	h.publish("42", `"after"`)
	c.expect(`"after"`)
	if s, err := h.Broker.State(t.Context(), "42"); err != nil || s.Unread != 2 {
		t.Errorf("state %+v, %v", s, err)
	}
}

// busy counts the goroutines in our code or the Redis client's. It leaves out idle HTTP
// workers.
func busy() (n int) {
	buf := make([]byte, 8<<20)
	for _, stack := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(stack, "herald/") || strings.Contains(stack, "go-redis") {
			n++
		}
	}
	return n
}
