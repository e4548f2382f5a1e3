package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"herald/internal/testing/gatewaytest"
)

// frame has the fields of all server frames.
type frame struct {
	Type         string
	UserID       string `json:"userId"`
	ID, Prev, TS int64
	Message      json.RawMessage
	After, Next  int64
	Last         int64
	Code         int
	RetryAfterMs int `json:"retryAfterMs"`

	resume int64 // the id field of a server-sent event; unset without one
}

func parseFrame(text []byte, resume int64) (frame, error) {
	f := frame{resume: resume}
	if err := json.Unmarshal(text, &f); err != nil {
		return f, fmt.Errorf("frame %.80q: %w", text, err)
	}
	return f, nil
}

// wire is one connection over WebSocket or SSE.
type wire interface {
	next() (frame, error)
	// leave closes as a client should, abort with RST. Both make next fail. Any goroutine
	// may call them, more than once.
	leave()
	abort()
}

// deadAfter is the silence after which a device closes a connection. The gateways ping
// more often.
const deadAfter = 3 * pingEvery

// errRefused is an answer that is not a stream.
type errRefused struct{ status int }

func (e errRefused) Error() string { return fmt.Sprintf("answered with %d", e.status) }

// streams numbers the connections of all devices.
var streams atomic.Int64

// device is a client that reconnects and resumes until it is stopped: over WebSocket as
// herald.js does, over SSE as an EventSource does.
type device struct {
	// Static after construction.
	name  string
	user  string
	sse   bool
	home  int      // the node it prefers
	nodes []string // host:port of each
	h     *history

	r *rand.Rand // owned by run

	cancel context.CancelFunc // set by start: ends run
	done   chan struct{}      // closed when run has returned

	mu      sync.Mutex
	wire    wire      // guarded by mu; nil between streams
	leaving bool      // guarded by mu; the device closed the stream itself
	away    time.Time // guarded by mu: no stream before this
	at      standing  // guarded by mu
}

// standing is the position of a device's stream.
type standing struct {
	stream  int   // the latest; 0 before the first
	open    bool  // hello has arrived and the stream has not closed
	since   int64 // what it asked for
	hello   int64 // hello.last
	gaps    int   // received
	last    int64 // where to resume; unset: from now on
	newest  int64 // the newest id that this stream has delivered or covered by a gap
	heard   int   // notifications, in all streams
	retryMs int   // from bye
}

func newDevice(name, user string, h *history, nodes []string, home int, r *rand.Rand) *device {
	d := &device{name: name, user: user, h: h, nodes: nodes, home: home, r: r, done: make(chan struct{})}
	if r.IntN(2) == 0 {
		d.at.last = unset
	}
	return d
}

// start connects, and reconnects after each close, until stop.
func (d *device) start() {
	ctx, cancel := context.WithCancel(context.Background())
	d.cancel = cancel
	go func() { defer close(d.done); d.run(ctx) }()
}

// stop closes the stream and ends all reconnecting.
func (d *device) stop() {
	d.cancel()
	d.drop(0, wire.abort)
	<-d.done
}

func (d *device) run(ctx context.Context) {
	for failures := 0; ctx.Err() == nil; {
		if d.stream(ctx, (d.home+failures)%len(d.nodes)) {
			failures = 0
		} else {
			failures++
		}
		rest(ctx, d.backoff())
	}
}

// backoff is herald.js's, with shorter times.
func (d *device) backoff() time.Duration {
	wait := time.Duration(10+d.r.IntN(50)) * time.Millisecond
	d.mu.Lock()
	defer d.mu.Unlock()
	wait += min(time.Duration(d.at.retryMs)*time.Millisecond, 300*time.Millisecond)
	return max(wait, time.Until(d.away))
}

// stream runs one connection until it closes. It reports whether hello arrived.
func (d *device) stream(ctx context.Context, node int) (greeted bool) {
	no, since := d.begin()
	d.h.add(event{Kind: streamAsked, Stream: no, Device: d.name, User: d.user, Node: node, Since: since})
	w, err := d.dial(ctx, d.nodes[node], since)
	if err != nil {
		status := 0
		if refused, ok := err.(errRefused); ok {
			status = refused.status
		}
		d.h.add(event{Kind: streamRefused, Stream: no, Device: d.name, Node: node, Status: status, Error: err.Error()})
		return false
	}
	d.hold(ctx, w)
	for err == nil {
		var f frame
		if f, err = w.next(); err == nil {
			d.take(f, no)
			greeted = greeted || f.Type == "hello"
		}
	}
	own := d.letGo()
	w.abort()
	d.h.add(event{Kind: streamClosed, Stream: no, Device: d.name, Node: node, Own: own, Error: err.Error()})
	return greeted
}

func (d *device) dial(ctx context.Context, addr string, since int64) (wire, error) {
	if d.sse {
		return dialEvents(ctx, addr, gatewaytest.UserToken(d.user), since)
	}
	return dialWebSocket(ctx, addr, gatewaytest.UserToken(d.user), since)
}

func (d *device) begin() (no int, since int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at.stream, d.at.open, d.at.since, d.at.gaps, d.at.retryMs = int(streams.Add(1)), false, d.at.last, 0, 0
	return d.at.stream, d.at.since
}

func (d *device) hold(ctx context.Context, w wire) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wire, d.leaving = w, false
	if ctx.Err() != nil { // stop came while there was nothing to drop
		d.leaving = true
		w.abort()
	}
}

func (d *device) letGo() (own bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wire, d.at.open = nil, false
	return d.leaving
}

// drop closes the open stream, if any, and delays the reconnect.
func (d *device) drop(away time.Duration, end func(wire)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.away = time.Now().Add(away)
	if d.wire != nil {
		d.leaving = true
		d.at.open = false
		end(d.wire)
	}
}

// take records a frame and moves the resume position.
func (d *device) take(f frame, no int) {
	d.h.add(event{
		Kind: frameReceived, Stream: no, Device: d.name, User: f.UserID, Frame: f.Type, Message: string(f.Message),
		ID: f.ID, Prev: f.Prev, TS: f.TS, After: f.After, Next: f.Next, Last: f.Last, Code: f.Code,
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at.follow(f)
	if f.Type == "hello" {
		d.at.open = !d.leaving
	}
	switch {
	case !d.sse:
		d.at.last = d.at.after(f)
	case f.resume != unset:
		d.at.last = f.resume
	}
}

// follow updates the position by one frame.
func (at *standing) follow(f frame) {
	switch f.Type {
	case "hello":
		at.hello, at.newest = f.Last, f.Last
	case "notification":
		at.heard++
		at.newest = max(at.newest, f.ID)
	case "gap":
		at.gaps++
	case "bye":
		at.retryMs = f.RetryAfterMs
	}
}

// after returns the resume position of herald.js after a frame.
func (at *standing) after(f frame) int64 {
	switch {
	case f.Type == "hello" && at.last == unset:
		return f.Last
	case f.Type == "notification" && f.ID != 0:
		return f.ID
	case f.Type == "gap" && f.Next > 0:
		return f.Next - 1
	case f.Type == "gap":
		return at.newest
	}
	return at.last
}

func (d *device) standing() standing {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.at
}

// upToDate reports whether an open stream has delivered, or covered by gaps, everything up
// to newest.
func (at standing) upToDate(newest int64) bool {
	if !at.open || at.since > at.hello && at.gaps == 0 {
		return false
	}
	return at.last >= newest
}
