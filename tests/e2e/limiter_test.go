package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"herald/internal/testing/gatewaytest"
	"herald/internal/testing/redistest"
)

// The limit of the tests below. No window of limitPer may admit more than limitN.
const (
	limitN   = 100
	limitPer = 2 * time.Second
)

// skews are the errors of the two nodes' clocks.
var skews = []time.Duration{37 * time.Second, -2 * time.Hour}

// skewedNodes starts two gateways with wrong clocks on one real Redis.
func skewedNodes(t *testing.T) []*gatewaytest.Gateway {
	t.Helper()
	r := redistest.Start(t)
	program := gatewaytest.Build(t, "-overlay="+clockOverlay(t))
	limit := fmt.Sprintf("HERALD_PUBLISH_LIMIT=%d/%s", limitN, limitPer)
	var nodes []*gatewaytest.Gateway
	for _, skew := range skews {
		g := gatewaytest.Launch(t, program, gatewaytest.Settings(r.URL(), limit, "CLOCK_SKEW_SECONDS="+strconv.Itoa(int(skew/time.Second)))...)
		g.AwaitReady()
		checkSkew(t, g, skew)
		nodes = append(nodes, g)
	}
	return nodes
}

// clockOverlay writes a go build overlay in which time.Now is wrong by CLOCK_SKEW_SECONDS.
// It changes the wall clock only, not monotonic time.
func clockOverlay(t *testing.T) string {
	t.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	original := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	source, err := os.ReadFile(original)
	if err != nil {
		t.Fatal(err)
	}
	const reading = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	if strings.Count(string(source), reading) != 1 {
		t.Fatalf("time.Now is written differently in this Go release: adapt the overlay")
	}
	skewed := strings.Replace(string(source), reading, reading+"\tsec += clockSkew\n", 1)
	const skew = `package time

import "syscall"

var clockSkew = func() int64 {
	text, _ := syscall.Getenv("CLOCK_SKEW_SECONDS")
	seconds, _ := atoi(text)
	return int64(seconds)
}()
`
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {
		original: write("time.go", skewed),
		filepath.Join(filepath.Dir(original), "clock_skew.go"): write("clock_skew.go", skew),
	}})
	if err != nil {
		t.Fatal(err)
	}
	return write("overlay.json", string(overlay))
}

// checkSkew reads the node's clock from its log. Without the skew these tests would prove
// nothing.
func checkSkew(t *testing.T, g *gatewaytest.Gateway, want time.Duration) {
	t.Helper()
	var entry struct{ Time time.Time }
	line, _, _ := strings.Cut(g.Log(), "\n")
	if err := json.Unmarshal([]byte(line), &entry); err != nil {
		t.Fatalf("log line %q: %v", line, err)
	}
	if off := time.Until(entry.Time) - want; off.Abs() > 20*time.Second {
		t.Fatalf("the node's clock is off by %v, want %v", time.Until(entry.Time), want)
	}
}

// interval bounds the time of a decision: after the request was sent and before its answer
// came.
type interval struct{ from, to time.Time }

func TestLimitHoldsOverNodesWithSkewedClocks(t *testing.T) {
	nodes := skewedNodes(t)
	t.Run("no window admits more", func(t *testing.T) { admitsNoMore(t, forTest(t, nodes)) })
	t.Run("the headers are Redis's time", func(t *testing.T) { tellsRedisTime(t, forTest(t, nodes)) })
	t.Run("Retry-After", func(t *testing.T) { retryAfterIsExact(t, forTest(t, nodes)) })
}

func forTest(t *testing.T, nodes []*gatewaytest.Gateway) (list []*gatewaytest.Gateway) {
	for _, g := range nodes {
		list = append(list, g.For(t))
	}
	return list
}

// admitsNoMore runs 100 publishers without pause for more than two windows.
func admitsNoMore(t *testing.T, nodes []*gatewaytest.Gateway) {
	const publishers = 100
	const windows = 2.5
	before := failedOpen(nodes)
	end := time.Now().Add(time.Duration(windows * float64(limitPer)))
	var mu sync.Mutex
	var admitted []interval // guarded by mu
	var denied atomic.Int64
	var all sync.WaitGroup
	for p := range publishers {
		all.Go(func() {
			for time.Now().Before(end) {
				sent := time.Now()
				a, err := nodes[p%len(nodes)].Try("POST", "/notify", `{"userId":"bob","message":1,"ephemeral":true}`, gatewaytest.BearerKey)
				switch {
				case err != nil:
					t.Error(err)
					return
				case a.Status == 429:
					denied.Add(1)
					time.Sleep(50 * time.Millisecond) // two processors have to serve this
				case a.Status == 503: // admitted, but Redis did not store it in time
				case a.Status == 200:
					mu.Lock()
					admitted = append(admitted, interval{sent, time.Now()})
					mu.Unlock()
				default:
					t.Errorf("%d %s", a.Status, a.Body)
					return
				}
			}
		})
	}
	all.Wait()
	// On a busy machine Redis may answer too late. The limiter then fails open, as it
	// should.
	uncounted := failedOpen(nodes) - before
	t.Logf("admitted %d, of them %d without Redis's answer, denied %d", len(admitted), uncounted, denied.Load())
	if uncounted > limitN/2 {
		t.Fatal("Redis's answers come too late for the limiter: this machine is too busy, or the gateway is broken")
	}
	if denied.Load() == 0 {
		t.Error("nothing was denied: the limit was not tried")
	}
	if len(admitted) < 2*limitN || len(admitted) > 3*limitN+uncounted {
		t.Errorf("%d admitted in %v windows of %d", len(admitted), windows, limitN)
	}
	if most := mostWithin(admitted, limitPer); most > limitN+uncounted {
		t.Errorf("%d were admitted within %v, the limit is %d", most, limitPer, limitN)
	}
}

// mostWithin returns the largest number of intervals that lie entirely within a window of
// that length.
func mostWithin(list []interval, window time.Duration) (most int) {
	for _, first := range list {
		n := 0
		for _, x := range list {
			if !x.from.Before(first.from) && x.to.Sub(first.from) < window {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}

// tellsRedisTime compares X-RateLimit-Reset with the real time; both nodes' clocks are far
// from it.
func tellsRedisTime(t *testing.T, nodes []*gatewaytest.Gateway) {
	for _, g := range nodes {
		a := g.Backend("POST", "/notify", `{"userId":"bob","message":1}`)
		reset, err := strconv.ParseInt(a.Header.Get("X-RateLimit-Reset"), 10, 64)
		if err != nil {
			t.Fatalf("%d X-RateLimit-Reset %q", a.Status, a.Header.Get("X-RateLimit-Reset"))
		}
		if ahead := time.Until(time.Unix(reset, 0)); ahead < -2*time.Second || ahead > limitPer+2*time.Second {
			t.Errorf("X-RateLimit-Reset is %v ahead", ahead)
		}
	}
}

// failedOpen returns how many requests the nodes admitted without Redis's answer, which
// may come too late on a busy machine.
func failedOpen(nodes []*gatewaytest.Gateway) (n int) {
	for _, g := range nodes {
		n += int(g.Metric(`herald_limiter_decisions_total{decision="failed_open",scope="publish"}`))
	}
	return n
}

// promise is a Retry-After and when it was given.
type promise struct {
	when  interval
	after time.Duration
}

func retryAfterIsExact(t *testing.T, nodes []*gatewaytest.Gateway) {
	const attempts = 5
	for range attempts {
		before := failedOpen(nodes)
		promises, denied, admitted := waitOutTheLimit(t, nodes)
		if failedOpen(nodes) > before {
			continue // perhaps that was what was admitted
		}
		for _, p := range promises {
			checkPromise(t, p.after, denied.Sub(p.when.to), admitted.Sub(p.when.from))
		}
		if len(promises) == 0 {
			t.Error("the window was not full")
		}
		return
	}
	t.Fatal("Redis's answers come too late for the limiter: this machine is too busy, or the gateway is broken")
}

// waitOutTheLimit fills the window in two steps and retries until a request is admitted.
// It returns the Retry-After values, when the last denied request was sent, and when the
// admitted one was answered.
func waitOutTheLimit(t *testing.T, nodes []*gatewaytest.Gateway) (promises []promise, denied, admitted time.Time) {
	t.Helper()
	time.Sleep(limitPer) // an empty window
	spend(t, nodes[0], 60)
	time.Sleep(700 * time.Millisecond)
	spend(t, nodes[1], 40)
	for i := 0; ; i++ {
		sent := time.Now()
		a := nodes[i%len(nodes)].Backend("POST", "/notify", `{"userId":"bob","message":1}`)
		when := interval{sent, time.Now()}
		if a.Status == 200 || a.Status == 503 { // 503: admitted, but Redis did not store it in time
			return promises, denied, when.to
		}
		checkProblem(t, a, 429)
		seconds, err := strconv.Atoi(a.Header.Get("Retry-After"))
		if err != nil {
			t.Fatalf("Retry-After %q", a.Header.Get("Retry-After"))
		}
		promises = append(promises, promise{when, time.Duration(seconds) * time.Second})
		denied = sent
		time.Sleep(10 * time.Millisecond)
	}
}

// checkPromise checks a Retry-After against the true wait, which lies between least and
// most. It must be enough, and less than a second too long.
func checkPromise(t *testing.T, promised, least, most time.Duration) {
	t.Helper()
	if promised < least {
		t.Errorf("Retry-After %v, but after %v it was still denied", promised, least)
	}
	if promised >= most+time.Second {
		t.Errorf("Retry-After %v, but after %v it was admitted", promised, most)
	}
}

// spend uses up n of the limit, which must be there.
func spend(t *testing.T, g *gatewaytest.Gateway, n int) {
	t.Helper()
	ids := make([]string, n)
	for i := range ids {
		ids[i] = `"u` + strconv.Itoa(i) + `"`
	}
	a := g.Backend("POST", "/notify", `{"userIds":[`+strings.Join(ids, ",")+`],"message":1,"ephemeral":true}`)
	if a.Status != 200 && a.Status != 503 { // 503: spent, but Redis did not store it in time
		t.Fatalf("spending %d: %d %s", n, a.Status, a.Body)
	}
}

func TestLimitHeadersAndRefusals(t *testing.T) {
	g, _ := node(t, "HERALD_PUBLISH_LIMIT=10/1h")
	one := `{"userId":"bob","message":1}`
	check := func(a gatewaytest.Answer, status, remaining int) {
		t.Helper()
		if a.Status != status {
			t.Fatalf("%d %s, want %d", a.Status, a.Body, status)
		}
		checkLimitHeaders(t, a, remaining)
	}
	check(g.Backend("POST", "/notify", one), 200, 9)
	check(g.Backend("POST", "/notify", `{"userIds":["a","b","c"],"message":1}`), 200, 6)
	check(g.Backend("POST", "/notify/batch", `{"notifications":[`+one+`,`+one+`]}`), 200, 4)

	watching := connectAs(t, g, "e")
	check(g.Backend("POST", "/notify", `{"userIds":["a","b","c","d","e"],"message":1}`), 429, 4)
	check(g.Backend("POST", "/notify/batch", `{"notifications":[{"userId":"e","message":1}`+strings.Repeat(","+one, 4)+`]}`), 429, 4)
	if got := watching.alive(t); len(got) > 0 {
		t.Errorf("of what was refused came %s", rawOf(got))
	}
	check(g.Backend("POST", "/notify", `{"userIds":["a","b","c","d"],"message":1}`), 200, 0)
	a := g.Backend("POST", "/notify", one)
	check(a, 429, 0)
	p := checkProblem(t, a, 429)
	if retry, err := strconv.Atoi(a.Header.Get("Retry-After")); err != nil || retry != p.RetryAfter || retry < 3500 || retry > 3600 {
		t.Errorf("Retry-After %q, retryAfter %d, want about an hour", a.Header.Get("Retry-After"), p.RetryAfter)
	}
	for name, bad := range map[string]gatewaytest.Answer{
		"bad body":  g.Backend("POST", "/notify", `{}`),
		"bad type":  g.Backend("POST", "/notify", one, "Content-Type: text/plain"),
		"bad batch": g.Backend("POST", "/notify/batch", `{}`),
	} {
		if bad.Header.Get("X-RateLimit-Limit") != "10" {
			t.Errorf("%s: %d without X-RateLimit-Limit: every answer carries it", name, bad.Status)
		}
	}
}

func checkLimitHeaders(t *testing.T, a gatewaytest.Answer, remaining int) {
	t.Helper()
	want := map[string]string{
		"X-RateLimit-Limit":     "10",
		"X-RateLimit-Remaining": strconv.Itoa(remaining),
		"RateLimit-Policy":      `"publish";q=10;w=3600`,
	}
	for name, value := range want {
		if got := a.Header.Get(name); got != value {
			t.Errorf("%s: %q, want %q", name, got, value)
		}
	}
	prefix := fmt.Sprintf(`"publish";r=%d;t=`, remaining)
	text, ok := strings.CutPrefix(a.Header.Get("RateLimit"), prefix)
	if seconds, err := strconv.Atoi(text); !ok || err != nil || seconds < 3500 || seconds > 3600 {
		t.Errorf("RateLimit: %q, want %s and about an hour", a.Header.Get("RateLimit"), prefix)
	}
	reset, err := strconv.ParseInt(a.Header.Get("X-RateLimit-Reset"), 10, 64)
	if ahead := time.Until(time.Unix(reset, 0)); err != nil || ahead < 3500*time.Second || ahead > 3602*time.Second {
		t.Errorf("X-RateLimit-Reset: %q", a.Header.Get("X-RateLimit-Reset"))
	}
}

func TestConnectLimit(t *testing.T) {
	g, _ := node(t, "HERALD_CONNECT_LIMIT=5/1h")
	var sockets []*socket
	for range 4 {
		sockets = append(sockets, connectAs(t, g, "alice"))
	}
	checkProblem(t, g.Do("GET", "/ws", "", upgrading...), 401) // a failed attempt counts
	a := g.Do("GET", "/ws", "", slices.Concat(upgrading, []string{bearer("alice")})...)
	checkProblem(t, a, 429)
	if retry, err := strconv.Atoi(a.Header.Get("Retry-After")); err != nil || retry < 3500 || retry > 3600 {
		t.Errorf("Retry-After %q", a.Header.Get("Retry-After"))
	}
	if a := g.Do("GET", "/ws", "", bearer("alice"), "X-Forwarded-For: 203.0.113.9"); a.Status != 429 {
		t.Errorf("a made-up X-Forwarded-For: %d, want 429", a.Status)
	}
	for _, s := range sockets {
		s.alive(t)
	}
}

// TestLimiterFailsOpen: without Redis the limiter refuses nothing, and requests that need
// no Redis succeed.
func TestLimiterFailsOpen(t *testing.T) {
	g, r := node(t, "HERALD_CONNECT_LIMIT=1/1h", "HERALD_PUBLISH_LIMIT=1/1h")
	r.Kill()
	for range 3 {
		if a := g.Do("GET", "/ws", "", bearer("alice")); a.Status == 429 {
			t.Errorf("connect: %d %s", a.Status, a.Body)
		}
		checkProblem(t, g.Backend("POST", "/notify", `{"userId":"bob","message":1}`), 503)
	}
}
