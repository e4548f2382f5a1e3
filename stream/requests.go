package stream

import (
	"errors"
	"sync"

	"herald/auth"
	"herald/notify"
)

// maxInvalid is how many invalid frames close a connection.
const maxInvalid = 10

// frame handles one frame from the client. It never waits for Redis: requests are
// handled in the background.
func (st *stream) frame(data []byte) {
	f, err := notify.ParseClientFrame(data)
	switch {
	case err != nil:
		st.reject(err)
	case f.Kind == notify.ClientPing:
		st.sock.Send("pong", notify.PongFrame())
	default:
		st.request(f)
	}
}

// reject answers an invalid frame, and closes the connection after too many.
func (st *stream) reject(err error) {
	st.sock.Send("error", notify.ErrorFrame(err.Error()))
	if st.invalid.Add(1) >= maxInvalid {
		st.sock.Close(notify.CloseMisuse, 0)
	}
}

// requests are client frames that may take a round trip: read positions and fresh
// tokens. One goroutine handles them in order. Read positions that arrive meanwhile
// are coalesced: only the furthest counts.
type requests struct {
	mu      sync.Mutex
	running bool      // guarded by mu
	reading bool      // guarded by mu: upTo waits
	upTo    notify.ID // guarded by mu
	tokens  []string  // guarded by mu: waiting, at most maxTokens
}

// maxTokens is how many tokens of one client may wait for verification.
const maxTokens = maxInvalid

// request queues f, and starts a goroutine for the queue if none runs.
func (st *stream) request(f notify.ClientFrame) {
	q := st.requests.Load()
	if q == nil {
		st.requests.CompareAndSwap(nil, &requests{})
		q = st.requests.Load()
	}
	start, ok := q.add(f)
	if !ok {
		st.reject(errors.New("token refused: too many at once"))
	}
	if start {
		st.background(func() { st.handle(q) })
	}
}

// add queues f. start is true if the caller must start handle; ok is false if the
// queue is full.
func (q *requests) add(f notify.ClientFrame) (start, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case f.Kind == notify.ClientRead:
		q.reading, q.upTo = true, max(q.upTo, f.UpTo)
	case len(q.tokens) < maxTokens:
		q.tokens = append(q.tokens, f.Token)
	default:
		return false, false
	}
	start = !q.running
	q.running = true
	return start, true
}

// take empties the queue. If it was empty, handle must return.
func (q *requests) take() (reading bool, upTo notify.ID, tokens []string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	reading, upTo, tokens = q.reading, q.upTo, q.tokens
	q.reading, q.upTo, q.tokens = false, 0, nil
	q.running = reading || len(tokens) > 0
	return reading, upTo, tokens
}

func (st *stream) handle(q *requests) {
	for {
		reading, upTo, tokens := q.take()
		if !reading && len(tokens) == 0 {
			return
		}
		for _, token := range tokens {
			if err := st.extend(token); err != nil {
				st.reject(err)
			}
		}
		if reading {
			st.markRead(upTo)
		}
	}
}

// markRead moves the read position. All of the user's connections, this one
// included, get the new one through Redis. A position that did not move is answered
// to this client only.
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
// authenticated lives as long as its session, whatever token it shows.
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
