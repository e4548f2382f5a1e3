package fetch

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func serve(t *testing.T, handler http.HandlerFunc, o Options) (address string, c *Client) {
	t.Helper()
	s := httptest.NewServer(handler)
	c = New(o)
	t.Cleanup(func() { c.Close(); s.Close() })
	return s.URL, c
}

func TestReturnsSmallDocumentsOnly(t *testing.T) {
	address, c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/document":
			_, _ = io.WriteString(w, r.Method+" "+r.Header.Get("Authorization")+" "+r.Header.Get("Accept"))
		case "/full":
			_, _ = io.WriteString(w, strings.Repeat("x", 100))
		case "/large":
			_, _ = io.WriteString(w, strings.Repeat("x", 101))
		case "/moved":
			http.Redirect(w, r, "/document", http.StatusFound)
		case "/broken":
			w.WriteHeader(http.StatusInternalServerError)
		case "/cut":
			w.Header().Set("Content-Length", "50")
			_, _ = io.WriteString(w, "x")
		default:
			http.NotFound(w, r)
		}
	}, Options{Token: "secret", MaxBytes: 100})
	if b, err := c.Get(t.Context(), address+"/document"); string(b) != "GET Bearer secret application/json" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	if b, err := c.Get(t.Context(), address+"/full"); len(b) != 100 || err != nil {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if _, err := c.Get(t.Context(), address+"/nothing"); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
	for path, want := range map[string]string{"/large": "more than 100 bytes", "/moved": "status 302", "/broken": "status 500", "/cut": "EOF"} {
		_, err := c.Get(t.Context(), address+path)
		if err == nil || errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
	}
	_, err := c.Get(t.Context(), "http://127.0.0.1:1/secret-path")
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("%v", err)
	}
}

func TestTimesOut(t *testing.T) {
	hang := make(chan struct{})
	address, c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.(http.Flusher).Flush() // the head in time, the body never
		<-hang
	}, Options{Timeout: 30 * time.Millisecond})
	defer close(hang)
	if _, err := c.Get(t.Context(), address); err == nil {
		t.Error("Get did not time out")
	}
}

func TestConcurrentRequestsAreLimited(t *testing.T) {
	var now, most atomic.Int64
	entered, release := make(chan struct{}, 20), make(chan struct{})
	address, c := serve(t, func(http.ResponseWriter, *http.Request) {
		most.Store(max(most.Load(), now.Add(1)))
		entered <- struct{}{}
		<-release
		now.Add(-1)
	}, Options{Most: 2, Timeout: time.Minute})
	var group sync.WaitGroup
	for range 10 {
		group.Go(func() {
			if _, err := c.Get(t.Context(), address); err != nil {
				t.Error(err)
			}
		})
	}
	<-entered
	<-entered
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := c.Get(ctx, address); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	close(release)
	group.Wait()
	if most.Load() > 2 {
		t.Errorf("%d at once", most.Load())
	}
}

// One request at a time probes a server that does not answer.
func TestOneRequestProbesASilentServer(t *testing.T) {
	var away atomic.Bool
	entered, release := make(chan struct{}, 2), make(chan struct{})
	address, c := serve(t, func(http.ResponseWriter, *http.Request) {
		if away.Load() {
			panic(http.ErrAbortHandler)
		}
		entered <- struct{}{}
		<-release
	}, Options{Timeout: time.Minute})
	away.Store(true)
	for range tolerated {
		if _, err := c.Get(t.Context(), address); err == nil || errors.Is(err, ErrAway) {
			t.Fatalf("%v", err)
		}
	}
	away.Store(false)
	probe := make(chan error)
	go func() { _, err := c.Get(t.Context(), address); probe <- err }()
	<-entered
	for range 10 {
		if _, err := c.Get(t.Context(), address); !errors.Is(err, ErrAway) {
			t.Errorf("%v", err)
		}
	}
	close(release)
	if err := <-probe; err != nil {
		t.Errorf("%v", err)
	}
	if _, err := c.Get(t.Context(), address); err != nil {
		t.Errorf("%v", err)
	}
}

func TestAcceptsAbsoluteURLsOnly(t *testing.T) {
	for address, ok := range map[string]bool{
		"https://app.example.com/x?y=1": true, "http://127.0.0.1:3000": true,
		"": false, "app.example.com/x": false, "ftp://a/": false, "file:///x": false, "https://": false, "https:///x": false,
		"https://u:p@a/": false, "https://a/#x": false, "https://a b/": false, "HTTPS://a/": true,
	} {
		if err := CheckURL(address); (err == nil) != ok {
			t.Errorf("%q: %v", address, err)
		}
	}
}
