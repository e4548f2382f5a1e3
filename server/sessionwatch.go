package server

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"herald/hub"
	"herald/notify"
)

// sessionWatch looks sessions up again for sockets that are open: when they
// seem to have expired (another request may have extended them since), when
// revocations may have been missed and, if they are another program's, again and
// again. One goroutine, many sessions a round trip;
// while Redis is away the sockets stay open and the question stays asked.
type sessionWatch struct {
	expiries expiries
	log      *slog.Logger

	mu      sync.Mutex
	waiting []*hub.Socket // guarded by mu
	wake    chan struct{} // holds one token while something waits; never closed
}

// expiryGroup is how many sessions are looked up in one round trip.
const expiryGroup = 500

// expiries says of each socket when its session expires unless it is used before;
// the zero time if it is gone.
type expiries func(context.Context, []*hub.Socket) ([]time.Time, error)

func newSessionWatch(ask expiries, log *slog.Logger) *sessionWatch {
	return &sessionWatch{expiries: ask, log: log, wake: make(chan struct{}, 1)}
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

// run also calls round at each tick, never before all that waited is looked up.
func (w *sessionWatch) run(ctx context.Context, tick <-chan time.Time, round func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick:
			round()
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
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		expiries, err := w.expiries(ctx, group)
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

// clockSlack is by how much this node's clock may be behind Redis's for what has
// just expired there to be told from what was revoked.
const clockSlack = time.Second

// settle gives a socket its session's new expiry, or ends it: as expired if the
// last known expiry has passed, as revoked otherwise.
func settle(s *hub.Socket, expires time.Time) {
	switch known := s.Data.(*stream).expiry(); {
	case !expires.IsZero():
		// Not at once again, even if this node's clock is ahead of Redis's.
		s.Data.(*stream).setExpiry(laterOf(expires, time.Now().Add(time.Second)))
	case time.Now().Add(clockSlack).Before(known):
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
