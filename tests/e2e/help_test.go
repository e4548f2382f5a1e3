package e2e

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"herald/internal/testing/gatewaytest"
	"herald/internal/testing/redistest"
)

// node starts a real Redis and one gateway on it.
func node(t *testing.T, settings ...string) (*gatewaytest.Gateway, *redistest.Server) {
	t.Helper()
	r := redistest.Start(t)
	return gatewaytest.Start(t, gatewaytest.Settings(r.URL(), settings...)...), r
}

// twoNodes starts a real Redis and two gateways on it.
func twoNodes(t *testing.T, settings ...string) (a, b *gatewaytest.Gateway, r *redistest.Server) {
	t.Helper()
	a, r = node(t, settings...)
	return a, gatewaytest.Start(t, gatewaytest.Settings(r.URL(), settings...)...), r
}

// eventually polls for an effect of another process that gives no event.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for: %s", patience, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// problem is the body of every error answer (RFC 9457).
type problem struct {
	Type       *string `json:"type"`
	Title      string  `json:"title"`
	Status     int     `json:"status"`
	Detail     string  `json:"detail"`
	Error      string  `json:"error"`
	RetryAfter int     `json:"retryAfter"`
}

// checkProblem checks that an answer is an error in the form that all errors have.
func checkProblem(t testing.TB, a gatewaytest.Answer, status int) (p problem) {
	t.Helper()
	if a.Status != status {
		t.Errorf("status %d, want %d: %s", a.Status, status, a.Body)
		return p
	}
	if got := a.Header.Get("Content-Type"); !strings.HasPrefix(got, "application/problem+json") {
		t.Errorf("%d with Content-Type %q, want application/problem+json: %s", status, got, a.Body)
		return p
	}
	a.Decode(t, &p)
	if p.Type == nil || *p.Type == "" || p.Title == "" || p.Status != status || p.Detail == "" || p.Error == "" {
		t.Errorf("%d lacks one of type, title, status, detail, error: %s", status, a.Body)
	}
	if strings.ContainsAny(p.Error, " \t\n") || len(p.Error) > 64 {
		t.Errorf("error %q is not short and stable", p.Error)
	}
	if status == http.StatusTooManyRequests && p.RetryAfter < 1 {
		t.Errorf("429 without retryAfter: %s", a.Body)
	}
	return p
}
