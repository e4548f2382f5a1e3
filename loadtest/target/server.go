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

// Server is something that runs and can be measured.
type Server struct {
	Dialect
	Name      string // for people
	Addr      string // host:port
	Admin     string // URL of the gateway's second listener; "" if unknown
	Redis     string // host:port; "" if unknown
	Processes measure.Processes
	Delivers  *Server // a second node on the same Redis that sockets are opened on; nil if there is none

	kind Kind
	stop []func()
}

// Kind names a dialect.
type Kind string

// The kinds of servers.
const (
	Herald           Kind = "herald"
	Article          Kind = "article"           // with its rate limiter
	ArticleUnlimited Kind = "article-unlimited" // without
	SocketIO         Kind = "socketio"
	Nchan            Kind = "nchan"
)

// Kinds are all of them, ours first.
var Kinds = []Kind{Herald, Article, ArticleUnlimited, SocketIO, Nchan}

// Title is a kind's name for people.
func (k Kind) Title() string {
	switch k {
	case Herald:
		return "Herald"
	case Article:
		return "article, limiter"
	case ArticleUnlimited:
		return "article, no limiter"
	case SocketIO:
		return "socket.io"
	case Nchan:
		return "nchan"
	}
	return string(k)
}

// About is what that is, in a sentence.
func (k Kind) About() string {
	switch k {
	case Herald:
		return "the gateway of this checkout: sessions looked up in Redis, a stored log, the rate limiter on"
	case Article:
		return "the Node server of the article that Herald starts from (express, ws, ioredis) with its sliding window: no authentication, no log, no pings"
	case ArticleUnlimited:
		return "the same without its rate limiter"
	case SocketIO:
		return "socket.io on Node with its Redis adapter, WebSocket only: no authentication, log or limiter"
	case Nchan:
		return "nginx with nchan and its Redis storage, a process for each core: buffers messages; no authentication or limiter"
	}
	return ""
}

func (k Kind) dialect(key string) (Dialect, error) {
	switch k {
	case Herald:
		return &herald{key: key}, nil
	case Article, ArticleUnlimited:
		return article{}, nil
	case SocketIO:
		return socketIO{}, nil
	case Nchan:
		return nchan{}, nil
	}
	return nil, fmt.Errorf("no such kind of server: %q", k)
}

// Existing describes a server that runs already.
type Existing struct {
	Kind     Kind   // default Herald
	URL      string // http://host:port
	PID      int    // of the server on this machine; 0: its cost is not measured
	RedisURL string // redis://host:port; "": Redis is not published to
	RedisPID int    // 0: its cost is not measured
	AdminURL string // of the gateway's second listener; "": unknown
	Key      string // a backend's API key
}

// Connect returns a server that runs already.
func Connect(e Existing) (*Server, error) {
	if e.Kind == "" {
		e.Kind = Herald
	}
	d, err := e.Kind.dialect(e.Key)
	if err != nil {
		return nil, err
	}
	s := &Server{Dialect: d, Name: e.Kind.Title(), Admin: strings.TrimSuffix(e.AdminURL, "/"), kind: e.Kind}
	if s.Addr, err = hostPort(e.URL, "http"); err != nil {
		return nil, err
	}
	if e.RedisURL != "" {
		if s.Redis, err = hostPort(e.RedisURL, "redis"); err != nil {
			return nil, err
		}
	}
	if e.PID != 0 {
		if s.Processes.Server, err = measure.Family(e.PID); err != nil {
			return nil, err
		}
	}
	if e.RedisPID != 0 {
		if s.Processes.Redis, err = measure.Family(e.RedisPID); err != nil {
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

// Close ends what was started for this server, Redis last.
func (s *Server) Close() {
	for i := len(s.stop) - 1; i >= 0; i-- {
		s.stop[i]()
	}
	s.stop = nil
}

// startRedis starts a Redis of the server's own, which keeps nothing.
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
	p, err := start("redis-server", surroundings{dir: dir}, program, "--bind", host, "--port", port, "--save", "", "--appendonly", "no",
		"--tcp-backlog", "4096", "--maxclients", "4096")
	if err != nil {
		return err
	}
	s.stop = append(s.stop, p.stop)
	s.Processes.Redis = []int{p.pid()}
	return p.await(ctx, func() bool { return answers(s.Redis) })
}

// started notes a server process; pids are looked up once it is ready.
func (s *Server) started(p *process) error {
	var err error
	s.Processes.Server, err = measure.Family(p.pid())
	return err
}

// settle gives what a start leaves to do a moment.
func settle(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
