//go:build linux

package target

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"herald/loadtest/measure"
)

// Server is a running server to measure.
type Server struct {
	Dialect
	Name         string // for people
	Addr         string // host:port
	Admin        string // URL of the admin listener; "" if unknown
	Redis        string // host:port; "" if unknown
	Processes    measure.Processes
	DeliveryNode *Server // a second node on the same Redis, for the sockets; nil: none

	stop []func()
}

// Kind is a kind of server.
type Kind string

// The kinds of servers.
const (
	Herald            Kind = "herald"
	Baseline          Kind = "baseline"           // with its rate limiter
	BaselineUnlimited Kind = "baseline-unlimited" // without
	SocketIO          Kind = "socketio"
	Nchan             Kind = "nchan"
)

// Kinds lists all kinds, the gateway first.
var Kinds = []Kind{Herald, Baseline, BaselineUnlimited, SocketIO, Nchan}

// Title returns the name of a kind in tables.
func (k Kind) Title() string {
	switch k {
	case Herald:
		return "Herald"
	case Baseline:
		return "Node baseline, limiter"
	case BaselineUnlimited:
		return "Node baseline, no limiter"
	case SocketIO:
		return "socket.io"
	case Nchan:
		return "nchan"
	}
	return string(k)
}

// About describes a kind in one sentence.
func (k Kind) About() string {
	switch k {
	case Herald:
		return "the gateway of this checkout, with session lookup in Redis, a stored log and the rate limiter"
	case Baseline:
		return "express, ws and ioredis as the usual tutorial combines them, with a sliding-window rate limiter; no authentication, no log, no pings"
	case BaselineUnlimited:
		return "the same without the rate limiter"
	case SocketIO:
		return "socket.io on Node with its Redis adapter, WebSocket only; no authentication, log or limiter"
	case Nchan:
		return "nginx with nchan and its Redis storage, one process per core; buffers messages; no authentication or limiter"
	}
	return ""
}

func (k Kind) dialect(key string) (Dialect, error) {
	switch k {
	case Herald:
		return &herald{key: key}, nil
	case Baseline, BaselineUnlimited:
		return baseline{}, nil
	case SocketIO:
		return socketIO{}, nil
	case Nchan:
		return nchan{}, nil
	}
	return nil, fmt.Errorf("no such kind of server: %q", k)
}

// Existing describes a running gateway, with the command-line flags. CPU and memory of
// a process without a PID are not measured.
type Existing struct {
	URL      string `group:"Server" name:"target" placeholder:"URL" help:"Measure this running gateway instead: http://host:port."`
	PID      int    `group:"Server" name:"pid" placeholder:"N" help:"Process of --target on this machine; its child processes count too."`
	RedisURL string `group:"Server" name:"redis" placeholder:"URL" help:"Redis of --target: redis://host:port."`
	RedisPID int    `group:"Server" name:"redis-pid" placeholder:"N" help:"Process of that Redis on this machine."`
	AdminURL string `group:"Server" name:"admin" placeholder:"URL" help:"Admin listener of --target, to count goroutines: http://host:port."`
	Key      string `group:"Server" name:"api-key" placeholder:"SECRET" help:"API key of --target, for publishing and creating sessions."`
}

// Connect returns a Server for a running gateway.
func Connect(e Existing) (*Server, error) {
	s := &Server{Dialect: &herald{key: e.Key}, Name: Herald.Title(), Admin: strings.TrimSuffix(e.AdminURL, "/")}
	var err error
	if s.Addr, err = hostPort(e.URL, "http"); err != nil {
		return nil, err
	}
	if e.RedisURL != "" {
		if s.Redis, err = hostPort(e.RedisURL, "redis"); err != nil {
			return nil, err
		}
	}
	if e.PID != 0 {
		if s.Processes.Server, err = measure.ProcessTree(e.PID); err != nil {
			return nil, err
		}
	}
	if e.RedisPID != 0 {
		if s.Processes.Redis, err = measure.ProcessTree(e.RedisPID); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func hostPort(text, scheme string) (string, error) {
	u, err := url.Parse(text)
	if err != nil {
		return "", err
	}
	if u.Scheme != scheme || u.Port() == "" || strings.Trim(u.Path, "/") != "" {
		return "", fmt.Errorf("must be %s://host:port, not %q", scheme, text)
	}
	// Sockets are opened without a resolver.
	addr, err := net.ResolveTCPAddr("tcp4", u.Host)
	if err != nil {
		return "", err
	}
	return addr.String(), nil
}

// Close stops what was started for this server, Redis last.
func (s *Server) Close() {
	for i := len(s.stop) - 1; i >= 0; i-- {
		s.stop[i]()
	}
	s.stop = nil
}

// startRedis starts a Redis for the server, without persistence.
func (s *Server) startRedis(ctx context.Context) error {
	program, err := lookPath("redis-server")
	if err != nil {
		return err
	}
	if s.Redis, err = freeAddress(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "loadtest")
	if err != nil {
		return err
	}
	s.stop = append(s.stop, func() { _ = os.RemoveAll(dir) })
	host, port, _ := net.SplitHostPort(s.Redis)
	p, err := start("redis-server", processOptions{dir: dir}, program, "--bind", host, "--port", port, "--save", "", "--appendonly", "no",
		"--tcp-backlog", "4096", "--maxclients", "4096")
	if err != nil {
		return err
	}
	s.stop = append(s.stop, p.stop)
	s.Processes.Redis = []int{p.pid()}
	return p.await(ctx, func() bool { return accepts(s.Redis) })
}

// started records the pids of a server process, once it is ready.
func (s *Server) started(p *process) error {
	var err error
	s.Processes.Server, err = measure.ProcessTree(p.pid())
	return err
}

// Sleep waits for the duration d, or until the context ends.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
