package stream

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"sync/atomic"
	"time"

	"herald/broker"
	"herald/hub"
	"herald/notify"
)

// stream is one client's connection, whatever its transport.
type stream struct {
	// Static once served.
	s    *Streams
	sock *hub.Socket

	expires   atomic.Int64 // Unix ns of the last known expiry of the credentials; 0: never
	helloSent atomic.Bool  // or the join was refused, and hello is never sent
	invalid   atomic.Int32 // invalid frames from the client

	requests atomic.Pointer[requests] // allocated with the first request
}

func (st *stream) base() *stream { return st }

// join adds the socket to the hub and sends hello; reading begins afterwards. While
// Redis is down hello waits, with the connection open, and so do the client's
// frames. A refused join is answered with its close code.
//
// The socket joins before the state is read: what is announced from then on is
// either in the pages that catchUp reads or noticed by GoLive.
func (st *stream) join(a Admission, r receiver) {
	if err := st.s.Hub.Join(st.sock, a.CheckedAt); err != nil {
		code, retryMs := closeCodeOf(err)
		st.sock.Close(code, retryMs)
		st.helloSent.Store(true)
		return
	}
	st.setExpiry(a.Expires)
	if st.s.polled != nil && a.Session != "" {
		st.s.checks.add(st.sock) // its session may have ended before the socket could be found
	}
	if state, err := st.s.Broker.State(st.s.ctx, a.UserID); err == nil {
		st.hello(a, state)
		return
	}
	st.background(func() {
		if state, ok := st.state(); ok {
			st.hello(a, state)
			r.ready()
		}
	})
}

// hello sends the hello frame and goes live, at once or after reading the log in
// the background.
func (st *stream) hello(a Admission, state broker.State) {
	from := state.Last
	if a.Resuming {
		from = a.Resume
	}
	missed := st.sock.Greet(st.helloFrame(state), from)
	st.helloSent.Store(true)
	if missed {
		st.background(st.sendRead)
	}
	if from > state.Last {
		st.sock.SendGap(state.Last) // the log has lost what the client has seen
	}
	if st.sock.Last() < state.Last || !st.goLive(state.Last) {
		st.background(st.catchUp)
	}
}

// sendRead sends the read position, which may have moved after the state in hello
// was read.
func (st *stream) sendRead() {
	if state, ok := st.state(); ok {
		st.sock.Send("read", notify.ReadFrame(state.Read, state.Unread))
	}
}

// background runs f in a goroutine, because the reader of the connection must not wait.
func (st *stream) background(f func()) {
	st.s.open.run(func() {
		defer func() {
			if v := recover(); v != nil {
				st.s.o.Panicked("stream", v)
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
	st.s.open.done()
}

func (st *stream) helloFrame(state broker.State) []byte {
	return notify.Hello{
		UserID: st.sock.UserID, ConnectionID: connectionID(),
		Last: state.Last, Read: state.Read, Unread: state.Unread, Ping: int(st.s.o.Ping / time.Second),
	}.Frame()
}

func (st *stream) setExpiry(t time.Time) {
	if !t.IsZero() {
		st.expires.Store(t.UnixNano())
	}
	st.sock.SetExpiry(t)
}

// expiry is the last known expiry. The socket's own is reset when it is due.
func (st *stream) expiry() time.Time { return time.Unix(0, st.expires.Load()) }

func connectionID() string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
