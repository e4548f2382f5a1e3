package server

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"herald/hub"
	"herald/notify"
	"herald/sessions"
)

// sessionWatch looks sessions up again for sockets that are open: when they
// seem to have expired (another request may have extended them since) and when
// revocations may have been missed. One goroutine, many sessions a round trip;
// while Redis is away the sockets stay open and the question stays asked.
type sessionWatch struct {
	sessions *sessions.Store
	log      *slog.Logger

	mu      sync.Mutex
	waiting []*hub.Socket // guarded by mu
	wake    chan struct{} // holds one token while something waits; never closed
}

// expiryGroup is how many sessions are looked up in one round trip.
const expiryGroup = 500

func newSessionWatch(store *sessions.Store, log *slog.Logger) *sessionWatch {
	return &sessionWatch{sessions: store, log: log, wake: make(chan struct{}, 1)}
}

// add never blocks.
func (w *sessionWatch) add(socks ...*hub.Socket) {
	w.mu.Lock()
	w.waiting = append(w.waiting, socks...)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *sessionWatch) take() []*hub.Socket {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := min(len(w.waiting), expiryGroup)
	group := w.waiting[:n:n]
	if w.waiting = w.waiting[n:]; len(w.waiting) == 0 {
		w.waiting = nil
	}
	return group
}

func (w *sessionWatch) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		}
		for group := w.take(); len(group) > 0; group = w.take() {
			if !w.check(ctx, group) {
				return
			}
		}
	}
}

// check looks a group up until Redis answers; false when ctx has ended.
func (w *sessionWatch) check(ctx context.Context, group []*hub.Socket) bool {
	handles := make([]string, len(group))
	for i, s := range group {
		handles[i] = s.Session
	}
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		expiries, err := w.sessions.Expiries(ctx, handles)
		if err == nil {
			for i, s := range group {
				settle(s, expiries[i])
			}
			return true
		}
		w.log.Warn("sessions of open connections cannot be checked", "sessions", len(group), "error", err)
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return false
		}
	}
}

// settle gives a socket its session's new expiry, or ends it: as expired if the
// last known expiry has passed, as revoked otherwise.
func settle(s *hub.Socket, expires time.Time) {
	switch known := s.Data.(*stream).expiry(); {
	case !expires.IsZero():
		// Not at once again, even if this node's clock is ahead of Redis's.
		s.Data.(*stream).setExpiry(laterOf(expires, time.Now().Add(time.Second)))
	case time.Now().Before(known):
		s.Close(notify.CloseRevoked, 0)
	default:
		s.Close(notify.CloseExpired, 0)
	}
}

func laterOf(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
