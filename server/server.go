// Package server is everything that speaks HTTP: the routes, the upgrade to
// WebSocket, and one client's life on any transport. It is the only room that
// knows Fiber.
package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/gofiber/fiber/v2"

	"herald/auth"
	"herald/broker"
	"herald/hub"
	"herald/internal/redisinfo"
	"herald/internal/redisx"
	"herald/internal/schedule"
	"herald/internal/transport"
	"herald/limiter"
	"herald/presence"
	"herald/publishing"
	"herald/sessions"
	"herald/sessions/foreign"
)

// Deps are the parts of the gateway that the server puts on the network. All are
// required, except Foreign or Sessions.
type Deps struct {
	Hub       *hub.Hub
	Broker    *broker.Broker
	Sessions  *sessions.Store // unless Foreign is given
	Foreign   *foreign.Store  // sessions of another program, instead of Sessions; default none
	Auth      *auth.Authenticator
	Tokens    *auth.Verifier
	Connect   *limiter.Limiter // keyed by client address
	Presence  *presence.Tracker
	Schedule  *schedule.Scheduler
	Publisher *publishing.Publisher
	Redis     *redisinfo.Sampler
}

// Options configures a Server. The zero value works.
type Options struct {
	Cookie         string         // the session cookie's name; default sid
	Origins        auth.Origins   // default: the request's own host
	TrustedProxies []netip.Prefix // whose X-Forwarded-* are believed; default nobody's
	Ping           time.Duration  // told to clients in hello; default 25 s
	SessionCheck   time.Duration  // between the looks at every open connection's session, if it is Foreign; default 30 s
	Demo           bool           // anyone may log in as anyone
	Plain          bool           // a goroutine for each stream, also where event loops are to be had
	Version        string         // shown in health
	Log            *slog.Logger   // default: nothing is logged
}

// Server is the gateway's HTTP side.
type Server struct {
	Deps
	o   Options
	app *fiber.App

	// ctx ends when the server closes: every stream's calls to Redis end with it.
	ctx     context.Context
	cancel  context.CancelFunc
	streams tally // open streams, and goroutines that work for them
	engine  *transport.Engine
	parsers parsers

	watch   *sessionWatch
	started time.Time
	panics  atomic.Uint64
	refused refusals
	outage  redisx.Throttle
}

// Limits on what a request may cost before anyone knows who sent it.
const (
	maxBody        = 1 << 20          // bytes of a request's body
	maxHead        = 16 << 10         // bytes of a request's head: a JWT of 8 KiB and cookies fit
	readTimeout    = 10 * time.Second // for a request's head and body
	writeTimeout   = 10 * time.Second // for an answer
	idleTimeout    = 75 * time.Second // of a keep-alive connection: more than nginx's 60
	maxConcurrency = 256 << 10        // connections
)

// New returns a server that does not listen yet. Its event loops run; Shutdown
// ends them.
func New(r Deps, o Options) (*Server, error) {
	if o.Cookie == "" {
		o.Cookie = "sid"
	}
	if o.Ping == 0 {
		o.Ping = 25 * time.Second
	}
	if o.SessionCheck == 0 {
		o.SessionCheck = 30 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{Deps: r, o: o, started: time.Now()}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.watch = newSessionWatch(s.expiries(), o.Log)
	s.app = fiber.New(fiber.Config{
		StrictRouting: true, CaseSensitive: true,
		BodyLimit: maxBody, ReadBufferSize: maxHead, Concurrency: maxConcurrency,
		ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		DisablePreParseMultipartForm: true, DisableStartupMessage: true, DisableDefaultContentType: true,
		ErrorHandler: s.fail,
	})
	s.app.Server().NoDefaultServerHeader = true
	s.app.Server().HeaderReceived = s.bodyLimit
	s.app.Server().Logger = fasthttpLog{o.Log}
	s.routes()
	s.app.Server().Handler = s.front(s.app.Handler())
	var err error
	s.engine, err = transport.NewEngine(transport.Options{Goroutines: o.Plain, Panicked: func(v any) { s.panicked("stream", v) }})
	return s, err
}

// Serve takes l over, and answers on it until Shutdown. It returns nil after
// Shutdown.
func (s *Server) Serve(l net.Listener) error {
	l, err := transport.Listen(l)
	if err != nil {
		return err
	}
	return s.app.Listener(patient{l, s.o.Log, &redisx.Throttle{}})
}

// Run does the server's work in the background until ctx ends.
func (s *Server) Run(ctx context.Context) {
	if s.Foreign == nil {
		s.watch.run(ctx, nil, nil)
		return
	}
	t := time.NewTicker(s.o.SessionCheck)
	defer t.Stop()
	s.watch.run(ctx, t.C, s.checkForeign)
}

// Recheck has every open session looked up again: revocations may have been
// missed. It never blocks.
func (s *Server) Recheck() {
	s.Hub.Sessions(expiryGroup, func(group []*hub.Socket) bool {
		s.watch.add(group...)
		return true
	})
}

// Expired is what the hub calls when a socket's credentials run out.
func (s *Server) Expired(sock *hub.Socket) {
	if sock.Session == "" {
		sock.Close(closeExpired, 0)
		return
	}
	s.watch.add(sock) // it may have slid on since
}

// Shutdown stops listening, lets requests under way finish within ctx, and ends
// what is left of every stream. Drain the hub first.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.app.ShutdownWithContext(ctx)
	s.cancel()
	err = errors.Join(err, s.streams.wait(ctx))
	s.engine.Stop()
	return err
}

// patient is a listener that does not give up.
type patient struct {
	net.Listener
	log *slog.Logger
	due *redisx.Throttle
}

// Accept waits until there is a connection to be had: fasthttp would take a node
// that is out of file descriptors for one whose listener is gone, and end.
func (l patient) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	for wait := 5 * time.Millisecond; err != nil && !errors.Is(err, net.ErrClosed); wait = min(2*wait, time.Second) {
		if l.due.Allow() {
			l.log.Warn("no connection can be accepted", "error", err)
		}
		time.Sleep(wait)
		c, err = l.Listener.Accept()
	}
	return c, err
}

// fasthttpLog passes on what fasthttp has to say. At debug level: it logs
// each client that sent half a request.
type fasthttpLog struct{ log *slog.Logger }

func (l fasthttpLog) Printf(format string, args ...any) {
	l.log.Debug("http", "event", redact(format, args))
}
