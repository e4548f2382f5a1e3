package gatewaytest

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Answer is a response, read to its end; of a 101, only the head.
type Answer struct {
	Status int
	Header http.Header
	Body   string
}

// Decode reads the body, which must be JSON, into v.
func (a Answer) Decode(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.Body), v); err != nil {
		t.Fatalf("answer %d is not the JSON expected: %v\n%s", a.Status, err, a.Body)
	}
}

// newClient returns a client that uses no proxy, follows no redirect and decompresses no
// body.
func newClient(t testing.TB) *http.Client {
	transport := &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport: transport, Timeout: patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Try sends a request to the gateway; header holds "Name: value" lines. A body
// is JSON unless a header says otherwise. For goroutines, which cannot end a test.
func (g *Gateway) Try(method, path, body string, header ...string) (Answer, error) {
	return g.send(method, g.URL+path, body, header)
}

// Do is Try, but fails the test without an answer.
func (g *Gateway) Do(method, path, body string, header ...string) Answer {
	g.t.Helper()
	a, err := g.Try(method, path, body, header...)
	if err != nil {
		g.t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

func (g *Gateway) send(method, url, body string, header []string) (Answer, error) {
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return Answer{}, err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	setHeader(req, header)
	resp, err := g.http.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	a := Answer{Status: resp.StatusCode, Header: resp.Header}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return a, nil // what follows has no end
	}
	b, err := io.ReadAll(resp.Body)
	a.Body = string(b)
	return a, err
}

// setHeader adds every value of a repeated name, and removes a name without a value.
func setHeader(req *http.Request, header []string) {
	for _, line := range header {
		name, _, _ := strings.Cut(line, ":")
		req.Header.Del(name)
	}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch {
		case strings.EqualFold(name, "Host"):
			req.Host = value
		case value != "":
			req.Header.Add(name, value)
		}
	}
}

// Backend is Do with the API key that Settings configures.
func (g *Gateway) Backend(method, path, body string, header ...string) Answer {
	g.t.Helper()
	return g.Do(method, path, body, append([]string{BearerKey}, header...)...)
}

// Receipt is the answer to one notification.
type Receipt struct {
	OK    bool
	ID    int64
	Nodes int
	Error string
}

// Publish sends a message, a JSON text, to a user. It fails the test unless the gateway
// accepts it.
func (g *Gateway) Publish(userID, message string) Receipt {
	g.t.Helper()
	return g.PublishBody(`{"userId":"` + userID + `","message":` + message + `}`)
}

// PublishBody is Publish with a whole request's body.
func (g *Gateway) PublishBody(body string) (r Receipt) {
	g.t.Helper()
	a := g.Backend("POST", "/notify", body)
	if a.Status != http.StatusOK {
		g.t.Fatalf("POST /notify: %d %s", a.Status, a.Body)
	}
	a.Decode(g.t, &r)
	return r
}

// Session is one session of a user.
type Session struct {
	SessionID string    `json:"sessionId"` // the secret
	Handle    string    `json:"handle"`
	UserID    string    `json:"userId"`
	ExpiresAt time.Time `json:"expiresAt"`
}

// Cookie is the header line that a browser with this session sends.
func (s Session) Cookie() string { return "Cookie: sid=" + s.SessionID }

// CreateSession creates a session as a backend does.
func (g *Gateway) CreateSession(userID string) (s Session) {
	g.t.Helper()
	a := g.Backend("POST", "/sessions", `{"userId":"`+userID+`"}`)
	if a.Status != http.StatusCreated {
		g.t.Fatalf("POST /sessions: %d %s", a.Status, a.Body)
	}
	a.Decode(g.t, &s)
	return s
}

// Origin is the header line that a page of the gateway's own site sends.
func (g *Gateway) Origin() string { return "Origin: " + g.URL }

// Addr is the host:port that the gateway serves on.
func (g *Gateway) Addr() string { return strings.TrimPrefix(g.URL, "http://") }

// Admin is a GET on the operators' listener.
func (g *Gateway) Admin(path string) Answer {
	g.t.Helper()
	a, err := g.send("GET", g.AdminURL+path, "", nil)
	if err != nil {
		g.t.Fatalf("GET %s of the admin listener: %v", path, err)
	}
	return a
}

// Metric returns the value of one series of /metrics, written as there:
// name{label="value"}, labels in alphabetical order. It fails the test if there is no such
// series, so that a misspelt one does not count as zero.
func (g *Gateway) Metric(series string) float64 {
	g.t.Helper()
	for lines := bufio.NewScanner(strings.NewReader(g.Admin("/metrics").Body)); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), series+" "); ok {
			v, err := strconv.ParseFloat(text, 64)
			if err != nil {
				g.t.Fatalf("metric %s: %v", series, err)
			}
			return v
		}
	}
	g.t.Fatalf("/metrics has no series %s", series)
	return 0
}
