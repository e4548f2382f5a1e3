package server

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/pprof"
	"time"
)

// Admin is the second listener, for operators: metrics and profiles. It belongs
// on the loopback interface.
type Admin struct{ http http.Server }

// NewAdmin returns the admin side of s.
func NewAdmin(s *Server) *Admin {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metricsHandler(s))
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return &Admin{http: http.Server{Handler: mux, ReadHeaderTimeout: readTimeout, IdleTimeout: idleTimeout}}
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
