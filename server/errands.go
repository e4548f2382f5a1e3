package server

import (
	"errors"
	"sync"

	"herald/auth"
	"herald/notify"
)

// errands are what a client's frames ask for that may take a round trip. They
// are done one at a time beside the reader, which may not wait. While one is
// under way, further reads join into one: what counts is the furthest.
type errands struct {
	mu      sync.Mutex
	running bool      // guarded by mu
	reading bool      // guarded by mu: upTo waits
	upTo    notify.ID // guarded by mu
	tokens  []string  // guarded by mu: waiting, at most maxTokens
}

// maxTokens is how many fresh tokens may wait to be looked at.
const maxTokens = maxMisuse

// errand has f done.
func (st *stream) errand(f notify.ClientFrame) {
	e := st.errands.Load()
	if e == nil {
		st.errands.CompareAndSwap(nil, &errands{})
		e = st.errands.Load()
	}
	begin, ok := e.add(f)
	if !ok {
		st.misused(errors.New("token refused: too many at once"))
	}
	if begin {
		st.beside(func() { st.run(e) })
	}
}

// add notes f; begin is true if the caller has to see to it that it is done, ok
// is false if there is no room for it.
func (e *errands) add(f notify.ClientFrame) (begin, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case f.Kind == notify.ClientRead:
		e.reading, e.upTo = true, max(e.upTo, f.UpTo)
	case len(e.tokens) < maxTokens:
		e.tokens = append(e.tokens, f.Token)
	default:
		return false, false
	}
	begin = !e.running
	e.running = true
	return begin, true
}

// next takes what is to be done; nothing left ends the run.
func (e *errands) next() (reading bool, upTo notify.ID, tokens []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	reading, upTo, tokens = e.reading, e.upTo, e.tokens
	e.reading, e.upTo, e.tokens = false, 0, nil
	e.running = reading || len(tokens) > 0
	return reading, upTo, tokens
}

func (st *stream) run(e *errands) {
	for {
		reading, upTo, tokens := e.next()
		if !reading && len(tokens) == 0 {
			return
		}
		for _, token := range tokens {
			if err := st.extend(token); err != nil {
				st.misused(err)
			}
		}
		if reading {
			st.markRead(upTo)
		}
	}
}

// markRead moves the read position. The user's devices, this one included, hear
// of it through Redis; only a client that is behind is answered directly.
func (st *stream) markRead(upTo notify.ID) {
	state, err := st.s.Broker.MarkRead(st.s.ctx, st.sock.UserID, upTo)
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
	p, err := st.s.Tokens.Verify(st.s.ctx, token)
	switch {
	case err != nil:
		return errors.New("token refused: " + auth.Detail(err))
	case p.UserID != st.sock.UserID:
		return errors.New("token refused: it is another user's")
	case st.sock.Session != "":
		return errors.New("token refused: this connection lives as long as its session")
	}
	if p.Expires.After(st.expiry()) {
		st.setExpiry(p.Expires)
	}
	return nil
}
