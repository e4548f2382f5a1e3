// Package stream serves one client's connection from its admission to its goodbye,
// over WebSocket or server-sent events:
//
//	join     the hub counts the socket; from here on announcements are remembered
//	resume   hello, then the missed notifications from the log, or a gap frame
//	live     announcements, pings, and the client's own frames
//	goodbye  a bye frame with a close code, then the end of the connection
//
// It starts from a connection and an admission: the HTTP server has already
// authenticated the client and validated the handshake. So this package is tested
// over net.Pipe, without HTTP and without Redis.
package stream

import (
	"context"
	"log/slog"
	"time"

	"herald/auth"
	"herald/broker"
	"herald/hub"
	"herald/internal/transport"
	"herald/notify"
	"herald/sessions"
)

// Deps are what the streams work with. All are required.
type Deps struct {
	Hub      *hub.Hub
	Broker   Broker
	Tokens   Tokens
	Sessions Sessions
}

// Broker reads a user's log and read position. Its calls return an error while Redis
// is down; resuming clients then wait, with their connections open.
type Broker interface {
	State(ctx context.Context, userID string) (broker.State, error)
	After(ctx context.Context, userID string, after notify.ID, limit, bytes int) (broker.Page, error)
	MarkRead(ctx context.Context, userID string, upTo notify.ID) (broker.State, error)
}

// Tokens verifies the JWT that a client shows to extend its connection.
type Tokens interface {
	Verify(ctx context.Context, token string) (auth.Principal, error)
}

// Sessions looks up the sessions of open connections again.
type Sessions interface {
	// Expiries returns when each session expires unless it is used before; the zero
	// time if it is gone or belongs to another user.
	Expiries(ctx context.Context, refs []sessions.Ref) ([]time.Time, error)
}

// PolledSessions is implemented by Sessions that end without an announcement, as
// those of another program do. The session of every open connection is then looked
// up when it joins and every Options.SessionCheck.
type PolledSessions interface {
	Sessions
	// Forget drops what is remembered of sessions without an open connection.
	Forget(open map[string]bool)
}

// Options configures Streams. The zero value works.
type Options struct {
	Ping         time.Duration             // ping interval that hello tells clients; default 25 s
	SessionCheck time.Duration             // interval at which PolledSessions are looked up; default 30 s
	Log          *slog.Logger              // default: nothing is logged
	Panicked     func(where string, v any) // gets a recovered panic, which closes its own connection; default: ignored
}

// Streams serves the client connections of this process.
type Streams struct {
	Deps
	o       Options
	polled  PolledSessions // nil: the store announces when a session ends
	checks  *recheck
	parsers parsers

	ctx    context.Context // ends with Close; every stream's calls to Redis end with it
	cancel context.CancelFunc
	open   waitGroup // open streams, and goroutines that work for them
}

// New returns Streams without connections. Run looks sessions up; Close ends the work.
func New(d Deps, o Options) *Streams {
	if o.Ping == 0 {
		o.Ping = 25 * time.Second
	}
	if o.SessionCheck == 0 {
		o.SessionCheck = 30 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Panicked == nil {
		o.Panicked = func(string, any) {}
	}
	s := &Streams{Deps: d, o: o}
	s.polled, _ = d.Sessions.(PolledSessions)
	s.checks = newRecheck(d.Sessions, o.Log)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Close ends the streams' calls to Redis and waits until every stream has ended, or
// ctx has. It closes no connection: drain the hub first.
func (s *Streams) Close(ctx context.Context) error {
	s.cancel()
	return s.open.wait(ctx)
}

// Admission is what the server has found out about a client before its stream begins.
type Admission struct {
	UserID    string
	Session   string    // handle of the session that authenticated the client; "" for a token
	Expires   time.Time // when the credentials expire; zero: never
	CheckedAt time.Time // when the check of the credentials began: a later revocation refuses the join
	Resume    notify.ID // the last notification that the client has
	Resuming  bool      // Resume is given
}

// receiver is a stream as one transport implements it.
type receiver interface {
	transport.Receiver
	// ready is called if hello was sent after reading had begun.
	ready()
	base() *stream
}

// OpenWebSocket serves a client over WebSocket. It writes head, the handshake's
// answer, and hello in one write. early is what the client sent behind its request.
// After an error the connection is closed.
func (s *Streams) OpenWebSocket(conn transport.Conn, head, early []byte, a Admission) error {
	return s.serve(conn, head, early, a, webSocket, &webSocketStream{})
}

// OpenEvents is OpenWebSocket for server-sent events.
func (s *Streams) OpenEvents(conn transport.Conn, head, early []byte, a Admission) error {
	return s.serve(conn, head, early, a, eventStream, &eventsStream{})
}

// serve also closes the connection after a panic.
func (s *Streams) serve(conn transport.Conn, head, early []byte, a Admission, f hub.Framing, r receiver) (err error) {
	st := r.base()
	st.s = s
	st.sock = s.Hub.NewSocket(a.UserID, a.Session, f, conn)
	st.sock.Data = st
	s.open.add()
	started := false
	defer func() {
		if !started {
			r.End()
			conn.Abandon()
		}
	}()
	st.sock.Cork(head)
	st.join(a, r)
	st.sock.Uncork()
	if len(early) > 0 && !r.Receive(early) {
		st.sock.End()
	}
	if err := conn.Start(r); err != nil {
		return err
	}
	started = true
	return nil
}
