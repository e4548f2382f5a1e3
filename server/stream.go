package server

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"github.com/gofiber/fiber/v2"

	"herald/auth"
	"herald/broker"
	"herald/hub"
	"herald/internal/transport"
	"herald/limiter"
	"herald/notify"
)

// stream is one client's life on any transport:
// authenticate → join → resume → live → goodbye.
type stream struct {
	// Static once opened.
	s    *Server
	sock *hub.Socket

	expires atomic.Int64 // Unix ns when the credentials were last known to end; 0: never
	greeted atomic.Bool  // hello has been said, or never will be
	misuse  atomic.Int32 // frames that meant nothing

	errands atomic.Pointer[errands] // made when first needed
}

// streamer is a stream as its transport has it.
type streamer interface {
	transport.Receiver
	// ready is called if hello could only be said after the reading had begun.
	ready()
	base() *stream
}

func (st *stream) base() *stream { return st }

// maxMisuse is how many frames that mean nothing close a connection.
const maxMisuse = 10

// admission is what a stream's request has shown.
type admission struct {
	visitor
	resume   notify.ID // where the client wants to resume from
	resuming bool      // it does
}

// admit makes every check that a stream's request must pass before the
// connection is taken over, cheapest first where the order isn't the contract's.
func (s *Server) admit(c *fiber.Ctx, rule auth.OriginRule, over transportKind) (*admission, error) {
	if s.Hub.Draining() {
		return nil, errDraining
	}
	if err := s.limit(c, s.Connect, limiter.Subject(s.clientIP(c)), 1); err != nil {
		return nil, err
	}
	v, err := s.visit(c, rule, over)
	if err != nil {
		return nil, err
	}
	a := &admission{visitor: v}
	if a.resume, a.resuming, err = since(c); err != nil {
		return nil, err
	}
	if s.Hub.Full() {
		return nil, errOverloaded
	}
	if !s.Broker.Hears() {
		return nil, errDeaf
	}
	return a, nil
}

// since is where the client wants to resume from: SSE's Last-Event-ID,
// ?lastEventId= or ?since=, in this order: an EventSource that reconnects repeats
// the URL that it began with.
func since(c *fiber.Ctx) (id notify.ID, ok bool, err error) {
	places := []struct {
		name   string
		values []string
	}{
		{"Last-Event-ID", values(c, "Last-Event-ID")},
		{"lastEventId", queryValues(c, "lastEventId")},
		{"since", queryValues(c, "since")},
	}
	for _, p := range places {
		if len(p.values) == 0 {
			continue
		}
		if id, err = notify.ParseID(p.values[0]); err != nil || len(p.values) > 1 {
			return 0, false, &notify.FieldError{Field: p.name, Problem: notify.ErrID.Error()}
		}
		return id, true, nil
	}
	return 0, false, nil
}

// takeOver answers with head, takes the connection away from fasthttp, and lives
// c's life on it.
func (s *Server) takeOver(ctx *fiber.Ctx, head []byte, a *admission, w hub.Framing, c streamer) {
	s.hijack(ctx, func(raw net.Conn, early []byte) {
		unacked := time.Duration(0)
		if !w.AnswersPing() {
			unacked = readerTimeout
		}
		conn, err := s.engine.Adopt(raw, unacked)
		if err == nil {
			err = s.begin(conn, head, early, a, w, c)
		}
		if err != nil {
			s.o.Log.Debug("a connection cannot be taken over", "error", err)
		}
	})
}

// begin says head and hello, in one write, and has the connection read. After an
// error, or a panic, the connection is closed.
func (s *Server) begin(conn transport.Conn, head, early []byte, a *admission, w hub.Framing, c streamer) (err error) {
	st := c.base()
	st.s = s
	st.sock = s.Hub.NewSocket(a.UserID, a.SessionHandle, w, conn)
	st.sock.Data = st
	s.streams.enter()
	started := false
	defer func() {
		if !started {
			c.End()
			conn.Abandon()
		}
	}()
	st.sock.Cork(head)
	st.join(a, c)
	st.sock.Uncork()
	if len(early) > 0 && !c.Receive(early) {
		st.sock.End()
	}
	if err := conn.Start(c); err != nil {
		return err
	}
	started = true
	return nil
}

// join makes the socket one of its user's and says hello; only then is the
// connection read, unless Redis is away: then hello waits, with the socket open, and
// so do the client's frames. A socket that may not join is told why by its close
// code.
//
// The socket has joined when the state is asked for: whatever is announced from
// then on is either in the log pages that catchUp reads or noticed by GoLive.
func (st *stream) join(a *admission, c streamer) {
	if err := st.s.Hub.Join(st.sock, a.since); err != nil {
		code, retryMs := closeCodeOf(err)
		st.sock.Close(code, retryMs)
		st.greeted.Store(true)
		return
	}
	st.setExpiry(a.Expires)
	if st.s.Foreign != nil && a.SessionHandle != "" {
		st.s.watch.add(st.sock) // what happened to it since it was found concerned no socket
	}
	if state, err := st.s.Broker.State(st.s.ctx, a.UserID); err == nil {
		st.greet(a, state)
		return
	}
	st.beside(func() {
		if state, ok := st.state(); ok {
			st.greet(a, state)
			c.ready()
		}
	})
}

// greet says hello and goes live, or has that done as soon as the log is read.
func (st *stream) greet(a *admission, state broker.State) {
	from := state.Last
	if a.resuming {
		from = a.resume
	}
	missed := st.sock.Greet(st.hello(state), from)
	st.greeted.Store(true)
	if missed {
		st.beside(st.tellRead)
	}
	if from > state.Last {
		st.sock.SendGap(state.Last) // the future: the log has lost what the client has seen
	}
	if st.sock.Last() < state.Last || !st.goLive(state.Last) {
		st.beside(st.catchUp)
	}
}

// tellRead sends what may have changed between the state that hello told and
// hello.
func (st *stream) tellRead() {
	if state, ok := st.state(); ok {
		st.sock.Send("read", notify.ReadFrame(state.Read, state.Unread))
	}
}

// beside runs f beside the reader.
func (st *stream) beside(f func()) {
	st.s.streams.run(func() {
		defer func() {
			if v := recover(); v != nil {
				st.s.panicked("stream", v)
				st.sock.Close(notify.CloseOverloaded, 1000)
			}
		}()
		f()
	})
}

func closeCodeOf(err error) (code notify.CloseCode, retryAfterMs int) {
	switch {
	case errors.Is(err, hub.ErrTooMany):
		return notify.CloseTooManyConns, 0
	case errors.Is(err, hub.ErrRevoked):
		return notify.CloseRevoked, 0
	case errors.Is(err, hub.ErrDraining):
		return notify.CloseDraining, 1000
	}
	return notify.CloseOverloaded, 5000
}

// End implements transport.Receiver.
func (st *stream) End() {
	st.s.Hub.Leave(st.sock)
	st.s.streams.leave()
}

func (st *stream) hello(state broker.State) []byte {
	return notify.Hello{
		UserID: st.sock.UserID, ConnectionID: connectionID(),
		Last: state.Last, Read: state.Read, Unread: state.Unread, Ping: int(st.s.o.Ping / time.Second),
	}.Frame()
}

// goLive goes live without reading the log if nothing newer has been announced.
func (st *stream) goLive(newest notify.ID) bool {
	target := st.s.Hub.Target(st.sock.UserID)
	return target <= newest && st.sock.GoLive(target)
}

// catchUp reads the log page by page until it has caught up with what is announced.
func (st *stream) catchUp() {
	for {
		target := st.s.Hub.Target(st.sock.UserID)
		page, ok := st.page()
		if !ok || !st.sock.Resume(st.s.ctx, page.Entries) {
			return
		}
		if page.Full {
			continue
		}
		if st.sock.Last() < page.Last { // counted, but no longer in the log
			st.sock.SendGap(page.Last)
		}
		if st.sock.GoLive(target) {
			return
		}
	}
}

// pageBytes is how much of the log a resume holds at once, beside the socket's
// queue, which it waits for.
const pageBytes = 128 << 10

// state and page ask Redis until it answers or the client is gone.
func (st *stream) state() (state broker.State, ok bool) {
	ok = st.insist(func() (err error) {
		state, err = st.s.Broker.State(st.s.ctx, st.sock.UserID)
		return err
	})
	return state, ok
}

func (st *stream) page() (page broker.Page, ok bool) {
	ok = st.insist(func() (err error) {
		page, err = st.s.Broker.After(st.s.ctx, st.sock.UserID, st.sock.Last(), broker.MaxPage, pageBytes)
		return err
	})
	return page, ok
}

func (st *stream) insist(ask func() error) bool {
	const first, most = 50 * time.Millisecond, time.Second
	for wait := first; st.s.ctx.Err() == nil && !st.sock.Ended(); wait = min(2*wait, most) {
		if ask() == nil {
			return true
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-st.s.ctx.Done():
			t.Stop()
		}
	}
	return false
}

// frame handles one frame from the client. It doesn't wait for Redis: errands do.
func (st *stream) frame(data []byte) {
	f, err := notify.ParseClientFrame(data)
	switch {
	case err != nil:
		st.misused(err)
	case f.Kind == notify.ClientPing:
		st.sock.Send("pong", notify.PongFrame())
	default:
		st.errand(f)
	}
}

// misused answers a frame that means nothing.
func (st *stream) misused(err error) {
	st.sock.Send("error", notify.ErrorFrame(err.Error()))
	if st.misuse.Add(1) >= maxMisuse {
		st.sock.Close(notify.CloseMisuse, 0)
	}
}

func (st *stream) setExpiry(t time.Time) {
	if !t.IsZero() {
		st.expires.Store(t.UnixNano())
	}
	st.sock.SetExpiry(t)
}

// expiry outlives the socket's own, which the hub forgets when it is due.
func (st *stream) expiry() time.Time { return time.Unix(0, st.expires.Load()) }

func connectionID() string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
