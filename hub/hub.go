// Package hub holds the open connections of this process: each user's sockets, what
// each was sent, their pings, deadlines and close. It imports neither Redis nor
// HTTP: messages come in through Cork.Deliver and Hub.Backfill, bytes go out through
// each socket's Transport.
//
// Lock order: shard.mu, then user.mu, then Socket.mu, then wheel.mu.
package hub

import (
	"context"
	"errors"
	"hash/maphash"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"herald/notify"
)

// Reasons why Join refuses a socket, each with the code to close it with.
var (
	ErrDraining = errors.New("hub: draining")                          // 4101
	ErrFull     = errors.New("hub: too many connections on this node") // 4103
	ErrTooMany  = errors.New("hub: too many connections of this user") // 4004
	ErrRevoked  = errors.New("hub: session revoked while connecting")  // 4002
)

// Options configures a Hub. The zero value works.
type Options struct {
	QueueBytes  int           // bytes that may be queued for one socket; default 256 KiB
	Ping        time.Duration // interval of pings to a socket; default 25 s
	MaxPerUser  int           // sockets of one user on this node; default 20, negative: no limit
	MaxSockets  int           // sockets on this node; default no limit
	CloseWithin time.Duration // how long a peer may take to answer a close; default 2 s
	Log         *slog.Logger  // default: nothing is logged

	// OnGap is called when a user's live sockets lack a message that only the log
	// has. A repair must follow: read the log after Position, call Backfill, then
	// Repaired. Until then the user's live sockets get no stored message. OnGap is
	// called with a lock held and must not block or call the hub. Required wherever
	// announcements can be lost.
	OnGap func(userID string)
	// OnExpiry is called on the wheel's goroutine when a socket's credentials
	// expire. It must not block. Default: close with 4001.
	OnExpiry func(*Socket)
	// OnChange is called, without locks held, when a user has one socket more or
	// fewer. It must not block. Optional.
	OnChange func(userID string)
}

// Hub is the set of this process's sockets, sharded by user id.
type Hub struct {
	shards [shards]shard // first, so that each shard's fields are in one cache line

	// Static after construction.
	o      Options
	seed   maphash.Seed
	wheel  *wheel
	fanMin int // the constant fanMin, which tests lower

	sockets atomic.Int64 // joined and not yet left
	stats   stats
	revoked revocations
	fans    sync.WaitGroup

	drainMu  sync.Mutex
	draining atomic.Bool
	empty    chan struct{} // closed when draining and the last socket has left
}

const shards = 64

type shard struct {
	mu    sync.RWMutex
	users map[string]*user // guarded by mu
	_     [32]byte         // pads a shard to a cache line, 64 bytes
}

// user is one user's sockets on this node.
type user struct {
	id string // static

	mu        sync.Mutex
	sockets   []*Socket // guarded by mu
	live      int       // guarded by mu: how many of them are live
	last      notify.ID // guarded by mu: every live socket has been sent everything up to here
	seen      notify.ID // guarded by mu: newest id announced to this node or read by a live socket; never below last
	repairing bool      // guarded by mu: OnGap was called, Repaired not yet
	fan       *fanout   // guarded by mu: nil unless messages wait for a fanout
}

// New returns a hub and starts the goroutine of its timing wheel; Close stops it.
func New(o Options) *Hub {
	if o.QueueBytes == 0 {
		o.QueueBytes = 256 << 10
	}
	if o.Ping == 0 {
		o.Ping = 25 * time.Second
	}
	if o.MaxPerUser == 0 {
		o.MaxPerUser = 20
	}
	if o.CloseWithin == 0 {
		o.CloseWithin = 2 * time.Second
	}
	if o.OnChange == nil {
		o.OnChange = func(string) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	h := &Hub{o: o, seed: maphash.MakeSeed(), fanMin: fanMin, empty: make(chan struct{})}
	for i := range h.shards {
		h.shards[i].users = make(map[string]*user)
	}
	h.wheel = newWheel()
	return h
}

// Close closes every connection without a goodbye, and returns when the hub's
// goroutines have exited. Call Drain first to let clients reconnect elsewhere.
func (h *Hub) Close() {
	h.draining.Store(true)
	for _, s := range h.all() {
		s.End()
	}
	h.wheel.stop()
	h.fans.Wait()
}

func (h *Hub) shard(userID string) *shard {
	return &h.shards[maphash.String(h.seed, userID)%shards]
}

func (h *Hub) user(userID string) *user {
	sh := h.shard(userID)
	sh.mu.RLock()
	u := sh.users[userID]
	sh.mu.RUnlock()
	return u
}

// behindLocked requests a repair of u. Deliver requests no other until Repaired.
func (h *Hub) behindLocked(u *user) {
	h.stats.repairs.Add(1)
	if h.o.OnGap != nil {
		u.repairing = true
		h.o.OnGap(u.id)
	}
}

// appendLocked sends the next stored notification to the live sockets, corked by
// c. It returns false, and sends nothing, if too much waits for them.
func (h *Hub) appendLocked(c *Cork, u *user, m notify.Frame) bool {
	sent := h.sendLocked(c, u, entry, m)
	if sent {
		u.last, u.seen = m.ID, max(u.seen, m.ID)
	}
	return sent
}

// encodings caches the bytes of one message, or of several as one piece, for each
// framing in use.
type encodings [2]struct {
	framing Framing
	bytes   []byte
}

func (e *encodings) of(w Framing, messages []notify.Frame) []byte {
	for i := range e {
		if e[i].framing == nil {
			e[i].framing, e[i].bytes = w, join(w, messages)
		}
		if e[i].framing == w {
			return e[i].bytes
		}
	}
	return join(w, messages)
}

func join(w Framing, messages []notify.Frame) []byte {
	if len(messages) == 1 {
		return w.Encode(messages[0])
	}
	var p []byte
	for _, m := range messages {
		p = append(p, w.Encode(m)...)
	}
	return p
}

// Position returns the id up to which every live socket of the user was sent
// everything, or has it waiting. ok is false if the user has no live socket here.
func (h *Hub) Position(userID string) (_ notify.ID, ok bool) {
	u := h.user(userID)
	if u == nil {
		return 0, false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.last, u.live > 0
}

// Backfill sends what a repair read from the log, in order, to the live
// sockets, with a gap frame wherever an entry doesn't continue what they have. It
// returns when all of it has been written or queued; Deliver does not wait for it.
func (h *Hub) Backfill(userID string, entries []notify.Frame) {
	u := h.user(userID)
	if u == nil {
		return
	}
	for len(entries) > 0 {
		entries = h.backfill(u, entries)
		h.awaitFanout(u)
	}
}

// backfill gives u's fanout as many of the entries as may wait, and returns the
// others.
func (h *Hub) backfill(u *user, entries []notify.Frame) []notify.Frame {
	u.mu.Lock()
	defer u.mu.Unlock()
	for i, m := range entries {
		if u.live == 0 || m.ID <= u.last {
			continue
		}
		f := h.fanoutLocked(u)
		if f.bytes > fanMost {
			return entries[i:]
		}
		if m.Prev != u.last {
			f.addLocked(gap, notify.Frame{ID: m.ID, Prev: m.Prev})
		}
		if m.JSON == "" {
			f.addLocked(skip, m)
		} else {
			f.addLocked(entry, m)
			h.stats.repaired.Add(1)
		}
		u.last, u.seen = m.ID, max(u.seen, m.ID)
	}
	return nil
}

func gapMessage(after, next notify.ID) notify.Frame {
	return notify.Frame{Event: "gap", JSON: string(notify.GapFrame(after, next))}
}

// Target returns the newest id announced for the user on this node, 0 if none. A
// read of the log that begins after Target returns finds everything up to it.
func (h *Hub) Target(userID string) notify.ID {
	u := h.user(userID)
	if u == nil {
		return 0
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.seen
}

// Repaired ends a repair whose last read reached the end of the log. target is what
// Target returned before that read; newest is the user's newest id in the log's
// metadata, which may be newer than any retained entry: then the sockets get a gap
// frame. Repaired returns false if more was announced since; read again.
func (h *Hub) Repaired(userID string, target, newest notify.ID) bool {
	u := h.user(userID)
	if u == nil {
		return true
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.seen > target && u.live > 0 {
		return false
	}
	u.repairing = false
	if end := max(newest, target); u.live > 0 && u.last < end {
		h.sendLocked(nil, u, lost, notify.Frame{ID: end})
		u.last, u.seen = end, max(u.seen, end)
	}
	return true
}

// AwaitRoom returns when the queue of each of the user's live sockets is at most
// half full, or ctx ends.
func (h *Hub) AwaitRoom(ctx context.Context, userID string) {
	u := h.user(userID)
	if u == nil {
		return
	}
	u.mu.Lock()
	sockets := slices.Clone(u.sockets)
	live := slices.DeleteFunc(sockets, func(s *Socket) bool { return !s.live })
	u.mu.Unlock()
	for _, s := range live {
		s.awaitRoom(ctx)
	}
}

// Repair compares newest, the user's newest id in the log, with the position of the
// live sockets. If they differ and no repair is under way it returns true: the
// caller must repair the user and call Repaired. For sockets that are resuming,
// newest counts as announced.
func (h *Hub) Repair(userID string, newest notify.ID) bool {
	u := h.user(userID)
	if u == nil {
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.live == 0 {
		u.seen = max(u.seen, newest)
		return false
	}
	if u.repairing || newest == u.last {
		return false
	}
	h.stats.repairs.Add(1)
	u.repairing = true
	return true
}

// Count returns the number of open sockets on this node, and of their users.
func (h *Hub) Count() (sockets, users int) {
	for i := range h.shards {
		sh := &h.shards[i]
		sh.mu.RLock()
		users += len(sh.users)
		sh.mu.RUnlock()
	}
	return int(h.sockets.Load()), users
}

// Connections returns the number of the user's sockets on this node.
func (h *Hub) Connections(userID string) int {
	u := h.user(userID)
	if u == nil {
		return 0
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.sockets)
}

// UserIDs calls f with each user who has a socket on this node until f returns
// false. No lock is held while f runs.
func (h *Hub) UserIDs(f func(userID string) bool) {
	for i := range h.shards {
		sh := &h.shards[i]
		sh.mu.RLock()
		ids := slices.Collect(maps.Keys(sh.users))
		sh.mu.RUnlock()
		for _, id := range ids {
			if !f(id) {
				return
			}
		}
	}
}

// all returns every joined socket.
func (h *Hub) all() []*Socket {
	var list []*Socket
	for i := range h.shards {
		sh := &h.shards[i]
		sh.mu.RLock()
		for _, u := range sh.users {
			u.mu.Lock()
			list = append(list, u.sockets...)
			u.mu.Unlock()
		}
		sh.mu.RUnlock()
	}
	return list
}
