// Package admin serves the operators' listener: the dashboard, Prometheus metrics and
// profiles. It has no authentication, so it belongs on the loopback interface.
package admin

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"herald/broker"
	"herald/hub"
	"herald/internal/janitor"
	"herald/internal/recipients"
	"herald/internal/redisinfo"
	"herald/internal/schedule"
	"herald/limiter"
	"herald/patterns/cache"
	"herald/patterns/lock"
	"herald/web"
)

// Server is the public HTTP server, as the operators see it.
type Server interface {
	// Readiness returns the error code and detail of GET /health/ready, "" if the node is
	// ready.
	Readiness() (code, detail string)
	// Counters returns what the server has counted since the start of the node.
	Counters() Counters
}

// Counters are the public server's.
type Counters struct {
	Started time.Time
	Refused map[string]uint64 // requests answered with an error, by status
	Panics  uint64            // recovered panics
}

// Deps are the parts whose counters are shown. Those marked optional may be nil.
type Deps struct {
	Server     Server
	Hub        *hub.Hub
	Broker     *broker.Broker
	Publish    *limiter.Limiter // by publisher
	Connect    *limiter.Limiter // by client address
	Schedule   *schedule.Scheduler
	Redis      *redisinfo.Sampler
	Locks      *lock.Locker                  // optional
	Janitor    *janitor.Janitor              // optional
	Recipients *recipients.Directory         // optional
	Caches     map[string]func() cache.Stats // by name; optional
}

// Options configures an Admin. The zero value works.
type Options struct {
	Listen  string       // the configured address; its host is accepted in Host headers
	Version string       // shown on the dashboard
	Log     *slog.Logger // default: discarded
}

// Admin is the operators' HTTP server.
type Admin struct {
	Deps
	o    Options
	http http.Server
}

// Limits on a connection. There is none on an answer: a profile takes as long as it was
// asked to.
const (
	headTimeout = 10 * time.Second // for a request's head
	idleTimeout = 75 * time.Second // between two requests
)

// New returns a server that does not listen yet.
func New(d Deps, o Options) *Admin {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	a := &Admin{Deps: d, o: o}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", page)
	mux.HandleFunc("GET /assets/{name}", asset)
	mux.HandleFunc("GET /stats.json", a.stats)
	mux.Handle("GET /metrics", metricsHandler(d))
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	a.http = http.Server{Handler: newHosts(o.Listen).only(mux), ReadHeaderTimeout: headTimeout, IdleTimeout: idleTimeout}
	return a
}

// Serve answers requests on l until Shutdown, and then returns nil.
func (a *Admin) Serve(l net.Listener) error {
	if err := a.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Shutdown stops the server. It cuts off requests that take longer than a second, such
// as a profile.
func (a *Admin) Shutdown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if err := a.http.Shutdown(ctx); err != nil {
		return a.http.Close()
	}
	return nil
}

// page is GET /: the dashboard.
func page(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", web.CSP)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-cache")
	_, _ = w.Write(web.Dashboard()) // an error means that the browser has gone
}
