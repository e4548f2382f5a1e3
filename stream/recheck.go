package stream

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"herald/hub"
	"herald/notify"
	"herald/sessions"
)

// Run looks sessions of open connections up again, in one goroutine, until ctx ends.
func (s *Streams) Run(ctx context.Context) {
	var tick <-chan time.Time
	if s.polled != nil {
		t := time.NewTicker(s.o.SessionCheck)
		defer t.Stop()
		tick = t.C
	}
	s.checks.run(ctx, tick, s.poll)
}

// Recheck looks up the session of every open connection, because revocations may
// have been missed. It never blocks.
func (s *Streams) Recheck() { s.recheckAll(func(*hub.Socket) {}) }

func (s *Streams) recheckAll(each func(*hub.Socket)) {
	s.Hub.Sessions(recheckBatch, func(batch []*hub.Socket) bool {
		for _, sock := range batch {
			each(sock)
		}
		s.checks.add(batch...)
		return true
	})
}

// poll is Recheck for PolledSessions, which also forget the sessions without an open
// connection.
func (s *Streams) poll() {
	open := map[string]bool{}
	s.recheckAll(func(sock *hub.Socket) { open[sock.Session] = true })
	s.polled.Forget(open)
}

// SessionChanged looks up a session that may have ended, or belong to another user,
// for the connections that these users have opened with it. It never blocks.
func (s *Streams) SessionChanged(handle string, userIDs []string) {
	for _, userID := range userIDs {
		s.checks.add(s.Hub.OfSession(userID, handle)...)
	}
}

// Expired is the hub's Options.OnExpiry: it closes the socket, or looks its session
// up, which may have been extended since.
func (s *Streams) Expired(sock *hub.Socket) {
	if sock.Session == "" {
		sock.Close(notify.CloseExpired, 0)
		return
	}
	s.checks.add(sock)
}

// recheck looks up the sessions of open sockets, many in one round trip. While Redis
// is down the sockets stay open and wait for the lookup.
type recheck struct {
	// Static after construction.
	sessions Sessions
	log      *slog.Logger

	mu      sync.Mutex
	waiting []*hub.Socket // guarded by mu
	wake    chan struct{} // holds one token while sockets wait; never closed
}

// recheckBatch is how many sessions are looked up in one round trip.
const recheckBatch = 500

func newRecheck(s Sessions, log *slog.Logger) *recheck {
	return &recheck{sessions: s, log: log, wake: make(chan struct{}, 1)}
}

// add never blocks.
func (r *recheck) add(socks ...*hub.Socket) {
	r.mu.Lock()
	r.waiting = append(r.waiting, socks...)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *recheck) take() []*hub.Socket {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := min(len(r.waiting), recheckBatch)
	batch := r.waiting[:n:n]
	if r.waiting = r.waiting[n:]; len(r.waiting) == 0 {
		r.waiting = nil
	}
	return batch
}

// run also calls poll at each tick, when no lookup is waiting.
func (r *recheck) run(ctx context.Context, tick <-chan time.Time, poll func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick:
			poll()
		case <-r.wake:
		}
		for batch := r.take(); len(batch) > 0; batch = r.take() {
			if !r.check(ctx, batch) {
				return
			}
		}
	}
}

// check looks a batch up, with backoff until Redis answers; false if ctx has ended.
func (r *recheck) check(ctx context.Context, batch []*hub.Socket) bool {
	refs := make([]sessions.Ref, len(batch))
	for i, sock := range batch {
		refs[i] = sessions.Ref{Handle: sock.Session, UserID: sock.UserID}
	}
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		expiries, err := r.sessions.Expiries(ctx, refs)
		if err == nil {
			for i, sock := range batch {
				sock.Data.(*stream).applyExpiry(expiries[i])
			}
			return true
		}
		r.log.Warn("sessions of open connections cannot be checked", "sessions", len(batch), "error", err)
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return false
		}
	}
}

// clockSlack is by how much this node's clock may be behind Redis's. Within it, a
// session that is gone counts as expired, not as revoked.
const clockSlack = time.Second

// applyExpiry takes over the session's new expiry. If the session is gone, it closes
// the connection: as expired if the last known expiry has passed, else as revoked.
func (st *stream) applyExpiry(expires time.Time) {
	switch {
	case !expires.IsZero():
		// A second from now at the earliest, even if this node's clock is ahead of Redis's.
		if soon := time.Now().Add(time.Second); expires.Before(soon) {
			expires = soon
		}
		st.setExpiry(expires)
	case time.Now().Add(clockSlack).Before(st.expiry()):
		st.sock.Close(notify.CloseRevoked, 0)
	default:
		st.sock.Close(notify.CloseExpired, 0)
	}
}
