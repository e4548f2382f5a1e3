// Package server is the gateway's HTTP side: routes, checks, handlers, the table of
// errors, and the upgrade of a request to a stream. Only this package imports Fiber.
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
	"herald/stream"
)

// Deps are the parts of the gateway that the server puts on the network. All are
// required.
type Deps struct {
	Hub       *hub.Hub
	Broker    *broker.Broker
	Sessions  stream.Sessions // a SessionManager too, unless another program keeps them
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
	TrustedProxies []netip.Prefix // proxies whose X-Forwarded-* headers are trusted; default none
	Ping           time.Duration  // ping interval that hello tells clients; default 25 s
	SessionCheck   time.Duration  // interval at which another program's sessions are looked up again; default 30 s
	Demo           bool           // anyone may log in as anyone
	Plain          bool           // a goroutine for each stream instead of event loops
	Version        string         // shown in health
	Log            *slog.Logger   // default: discarded
}

// Server is the gateway's HTTP side.
type Server struct {
	Deps
	o   Options
	app *fiber.App

	// Streams serves the WebSocket and event-stream connections. Its Run must be called.
	Streams *stream.Streams

	ctx    context.Context // ends with Shutdown, and every handler's calls to Redis with it
	cancel context.CancelFunc
	engine *transport.Engine

	started time.Time
	panics  atomic.Uint64
	refused refusals
	outage  redisx.Throttle
}

// Limits on a request, before its sender is known.
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
func New(d Deps, o Options) (*Server, error) {
	if o.Cookie == "" {
		o.Cookie = "sid"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{Deps: d, o: o, started: time.Now()}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.Streams = stream.New(stream.Deps{Hub: d.Hub, Broker: d.Broker, Tokens: d.Tokens, Sessions: d.Sessions},
		stream.Options{Ping: o.Ping, SessionCheck: o.SessionCheck, Log: o.Log, Panicked: s.panicked})
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

// Serve answers on l until Shutdown, and closes l. It returns nil after Shutdown.
func (s *Server) Serve(l net.Listener) error {
	l, err := transport.Listen(l)
	if err != nil {
		return err
	}
	return s.app.Listener(patient{l, s.o.Log, &redisx.Throttle{}})
}

// Shutdown stops listening, waits for running requests and streams until ctx ends, and
// stops the event loops. Drain the hub first.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.app.ShutdownWithContext(ctx)
	s.cancel()
	err = errors.Join(err, s.Streams.Close(ctx))
	s.engine.Stop()
	return err
}

// patient is a listener that retries Accept.
type patient struct {
	net.Listener
	log *slog.Logger
	due *redisx.Throttle
}

// Accept retries with backoff until the listener is closed. fasthttp stops at the first
// error, also when the process is only out of file descriptors.
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

// fasthttpLog passes fasthttp's messages on, at debug level: fasthttp logs every client
// that sent half a request.
type fasthttpLog struct{ log *slog.Logger }

func (l fasthttpLog) Printf(format string, args ...any) {
	l.log.Debug("http", "event", redact(format, args))
}
