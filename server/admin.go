package server

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/pprof"
	"time"
)

// Admin is the second listener, for operators: the dashboard, metrics and
// profiles. It asks nobody who they are, so it belongs on the loopback interface.
type Admin struct{ http http.Server }

// AdminPages are what the dashboard is made of.
type AdminPages struct {
	Page  func() []byte
	Asset func(name string) (body []byte, contentType, etag string, ok bool)
}

// NewAdmin returns the admin side of s. listen is the address that it is
// configured to listen on.
func NewAdmin(s *Server, pages AdminPages, listen string) *Admin {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", pages.page)
	mux.HandleFunc("GET /assets/{name}", pages.asset)
	mux.HandleFunc("GET /stats.json", s.stats)
	mux.Handle("GET /metrics", metricsHandler(s))
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return &Admin{http: http.Server{Handler: newHosts(listen).only(mux), ReadHeaderTimeout: readTimeout, IdleTimeout: idleTimeout}}
}

// Serve answers on l until Shutdown.
func (a *Admin) Serve(l net.Listener) error {
	if err := a.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Shutdown stops it, cutting off what takes longer than a second: a profile.
func (a *Admin) Shutdown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if err := a.http.Shutdown(ctx); err != nil {
		return a.http.Close()
	}
	return nil
}
