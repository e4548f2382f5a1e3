package e2e

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"herald/internal/testing/gatewaytest"
	"herald/internal/testing/redistest"
)

// TestDashboard opens the dashboard in a browser, as an operator does.
func TestDashboard(t *testing.T) {
	r := redistest.Start(t, "--maxmemory-policy", "allkeys-lru", "--enable-debug-command", "yes")
	g := gatewaytest.Start(t, gatewaytest.Settings(r.URL())...)
	s := connectAs(t, g, "alice")
	b := startBrowser(t, g)
	p := b.openAt(g.AdminURL + "/")
	p.await("ready", textOf("state")+` === "ready"`)
	p.await("the open connection", `document.querySelector("#connections .now b").textContent === "1"`)
	for range 20 {
		g.Publish("alice", `"<img src=x onerror=alert(1)>"`)
		s.expect(t, "notification")
	}
	if err := r.Client().Do(t.Context(), "DEBUG", "SLEEP", "0.02").Err(); err != nil {
		t.Fatal(err)
	}
	p.await("the messages", `document.getElementById("totals").textContent.includes(", 20")`)
	p.await("what is wrong with Redis", `[...document.querySelectorAll("#checks [data-level=fail]")].some((e) => e.parentElement.textContent.includes("allkeys-lru"))`)
	p.await("the slow command", `document.getElementById("slow").textContent.includes("DEBUG")`)
	p.await("all charts", `document.querySelectorAll(".chart .uplot canvas").length === 10`)
	p.await("the line of the clients", `(() => {
		const c = document.querySelector("#redis-clients canvas");
		const d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
		const close = (i, v) => Math.abs(d[i] - v) < 24;
		for (let i = 0; i < d.length; i += 4) if (close(i, 0x27) && close(i + 1, 0x48) && close(i + 2, 0xb5) && d[i + 3] > 200) return true;
	})()`)
	p.await("its own styles", `getComputedStyle(document.getElementById("state")).borderRadius === "16px"`)
	p.picture("dashboard.png")

	r.Stop()
	p.await("that Redis is away", textOf("state")+`.startsWith("not ready")`)
	p.await("that Redis's figures are old", textOf("redis-about")+`.startsWith("does not answer")`)
	r.Continue()
	p.await("ready again", textOf("state")+` === "ready"`)
	g.Kill()
	p.await("that the node is gone", textOf("state")+`.startsWith("this node does not answer")`)
}

func TestAdminListener(t *testing.T) {
	g, _ := node(t)
	page := g.Admin("/")
	if page.Status != 200 || !strings.HasPrefix(page.Header.Get("Content-Type"), "text/html") ||
		!strings.Contains(page.Header.Get("Content-Security-Policy"), "default-src 'self'") {
		t.Errorf("the dashboard: %d %v", page.Status, page.Header)
	}
	for _, path := range []string{"/assets/dashboard.js", "/assets/dashboard.css", "/assets/uPlot.iife.min.js", "/assets/uPlot.min.css", "/assets/favicon.svg"} {
		if a := g.Admin(path); a.Status != 200 || a.Header.Get("ETag") == "" || a.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %d %v", path, a.Status, a.Header)
		}
	}
	if a := g.Admin("/stats.json"); a.Status != 200 || !json.Valid([]byte(a.Body)) || strings.Contains(a.Body, gatewaytest.Key) {
		t.Errorf("/stats.json: %d %s", a.Status, a.Body)
	}
	for _, path := range []string{"/assets/demo.js", "/assets/LICENSE", "/dashboard.js", "/nothing"} {
		if a := g.Admin(path); a.Status != 404 {
			t.Errorf("%s: %d", path, a.Status)
		}
	}
	for _, path := range []string{"/stats.json", "/assets/dashboard.js"} {
		checkProblem(t, g.Do("GET", path, ""), 404)
	}
}

// TestAdminHosts: DNS rebinding gives a page no access to the admin listener.
func TestAdminHosts(t *testing.T) {
	g, _ := node(t)
	port := g.AdminURL[strings.LastIndex(g.AdminURL, ":"):]
	for host, want := range map[string]int{
		"127.0.0.1" + port: 200, "localhost" + port: 200, "LOCALHOST": 200, "herald.localhost" + port: 200, "[::1]" + port: 200,
		"evil.example" + port: 421, "evil.example": 421, "127.0.0.1.evil.example" + port: 421, "localhost.evil.example": 421,
	} {
		for _, path := range []string{"/", "/stats.json", "/metrics", "/debug/pprof/cmdline"} {
			req, err := http.NewRequestWithContext(t.Context(), "GET", g.AdminURL+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = host
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != want {
				t.Errorf("%s with Host %s: %d, want %d", path, host, resp.StatusCode, want)
			}
		}
	}
}
