package server

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"sync/atomic"
	"time"

	"github.com/gofiber/fiber/v2"

	"herald/auth"
	"herald/broker"
	"herald/hub"
	"herald/limiter"
	"herald/notify"
)

// stream is one client's life on any transport:
// authenticate → join → resume → live → goodbye.
type stream struct {
	// Static after construction.
	s        *Server
	visitor  visitor
	since    notify.ID
	hasSince bool
	sock     *hub.Socket

	// ctx ends when the client is gone.
	ctx    context.Context
	cancel context.CancelFunc

	expires atomic.Int64 // Unix ns when the credentials were last known to end; 0: never

	// Made by join if hello has to wait, closed when it has been said.
	greeted chan struct{}

	// Owned by the reader.
	misuse int // frames that meant nothing
}

// maxMisuse is how many frames that mean nothing close a connection.
const maxMisuse = 10

// admit makes every check that a stream's request must pass before the
// connection is taken over, cheapest first where the order isn't the contract's.
func (s *Server) admit(c *fiber.Ctx, rule auth.OriginRule, over transportKind) (*stream, error) {
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
	st := &stream{s: s, visitor: v}
	if st.since, st.hasSince, err = since(c); err != nil {
		return nil, err
	}
	if s.Hub.Full() {
		return nil, errOverloaded
	}
	if !s.Broker.Hears() {
		return nil, errDeaf
	}
	return st, nil
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

// open makes the stream's socket, registers it and starts its resume. The
// caller reads from the connection next and calls end when that fails.
func (st *stream) open(w hub.Wire, out hub.Transport) {
	st.ctx, st.cancel = context.WithCancel(st.s.ctx)
	st.sock = st.s.Hub.NewSocket(st.visitor.UserID, connectionID(), st.visitor.SessionHandle, w, out)
	st.sock.Data = st
}

// join makes the socket one of its user's and says hello; only then does the
// caller read, unless Redis is away: then hello waits, with the socket open, and
// so do the client's frames. A socket that may not join is told why by its close
// code.
//
// The socket has joined when the state is asked for: whatever is announced from
// then on is either in the log pages that catchUp reads or noticed by GoLive.
func (st *stream) join() {
	if err := st.s.Hub.Join(st.sock, st.visitor.since); err != nil {
		code, retryMs := closeCodeOf(err)
		st.sock.Close(code, retryMs)
		return
	}
	st.setExpiry(st.visitor.Expires)
	if state, err := st.s.Broker.State(st.ctx, st.visitor.UserID); err == nil {
		st.greet(state)
		return
	}
	st.greeted = make(chan struct{})
	st.beside(func() {
		if state, ok := st.state(); ok {
			st.greet(state)
			close(st.greeted)
		}
	})
}

// greet says hello and goes live, or has that done as soon as the log is read.
func (st *stream) greet(state broker.State) {
	missed := st.sock.Greet(st.hello(state), st.position(state))
	if missed {
		st.beside(st.tellRead)
	}
	if st.hasSince && st.since > state.Last {
		st.sock.Lose(state.Last) // the future: the log has lost what the client has seen
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

// beside runs f beside the reader, which notices a client that goes.
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

// end takes the socket out of the hub; its connection is closed.
func (st *stream) end() {
	st.cancel()
	st.s.Hub.Leave(st.sock)
}

func (st *stream) hello(state broker.State) []byte {
	return notify.Hello{
		UserID: st.visitor.UserID, ConnectionID: st.sock.ID,
		Last: state.Last, Read: state.Read, Unread: state.Unread, Ping: int(st.s.o.Ping / time.Second),
	}.Frame()
}

// position is where the client's stream stands: what it says, else the newest id.
func (st *stream) position(state broker.State) notify.ID {
	if st.hasSince {
		return st.since
	}
	return state.Last
}

// goLive goes live without reading the log if nothing newer has been announced.
func (st *stream) goLive(newest notify.ID) bool {
	target := st.s.Hub.Target(st.visitor.UserID)
	return target <= newest && st.sock.GoLive(target)
}

// catchUp reads the log page by page until it has caught up with what is announced.
func (st *stream) catchUp() {
	for {
		target := st.s.Hub.Target(st.visitor.UserID)
		page, ok := st.page()
		if !ok || !st.sock.Resume(st.ctx, page.Entries) {
			return
		}
		if page.Full {
			continue
		}
		if st.sock.Last() < page.Last { // counted, but no longer in the log
			st.sock.Lose(page.Last)
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
		state, err = st.s.Broker.State(st.ctx, st.visitor.UserID)
		return err
	})
	return state, ok
}

func (st *stream) page() (page broker.Page, ok bool) {
	ok = st.insist(func() (err error) {
		page, err = st.s.Broker.After(st.ctx, st.visitor.UserID, st.sock.Last(), broker.MaxPage, pageBytes)
		return err
	})
	return page, ok
}

func (st *stream) insist(ask func() error) bool {
	const first, most = 50 * time.Millisecond, time.Second
	for wait := first; st.ctx.Err() == nil && !st.sock.Ended(); wait = min(2*wait, most) {
		if ask() == nil {
			return true
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-st.ctx.Done():
			t.Stop()
		}
	}
	return false
}

// frame handles one frame from the client.
func (st *stream) frame(data []byte) {
	if !st.awaitHello() {
		return
	}
	f, err := notify.ParseClientFrame(data)
	if err == nil {
		err = st.obey(f)
	}
	if err == nil {
		return
	}
	st.sock.Send("error", notify.ErrorFrame(err.Error()))
	if st.misuse++; st.misuse >= maxMisuse {
		st.sock.Close(notify.CloseMisuse, 0)
	}
}

// awaitHello returns true once hello has been said, false if the socket ends
// before.
func (st *stream) awaitHello() bool {
	if st.greeted == nil {
		return true
	}
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	for !st.sock.Ended() {
		select {
		case <-st.greeted:
			return true
		case <-t.C:
		}
	}
	return false
}

func (st *stream) obey(f notify.ClientFrame) error {
	switch f.Kind {
	case notify.ClientPing:
		st.sock.Send("pong", notify.PongFrame())
	case notify.ClientRead:
		st.markRead(f.UpTo)
	case notify.ClientToken:
		return st.extend(f.Token)
	}
	return nil
}

// markRead moves the read position. The user's devices, this one included, hear
// of it through Redis; only a client that is behind is answered directly.
func (st *stream) markRead(upTo notify.ID) {
	state, err := st.s.Broker.MarkRead(st.ctx, st.visitor.UserID, upTo)
	switch {
	case err != nil:
		st.sock.Send("error", notify.ErrorFrame("read was not stored: Redis is not available"))
	case !state.Moved:
		st.sock.Send("read", notify.ReadFrame(state.Read, state.Unread))
	}
}

// extend takes a fresh JWT of the same user. A connection that a session
// authenticated ends with its session, whatever tokens it shows.
func (st *stream) extend(token string) error {
	p, err := st.s.Tokens.Verify(st.ctx, token)
	switch {
	case err != nil:
		return errors.New("token refused: " + auth.Detail(err))
	case p.UserID != st.visitor.UserID:
		return errors.New("token refused: it is another user's")
	case st.visitor.SessionHandle != "":
		return errors.New("token refused: this connection lives as long as its session")
	}
	if p.Expires.After(st.expiry()) {
		st.setExpiry(p.Expires)
	}
	return nil
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
