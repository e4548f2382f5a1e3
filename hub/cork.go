package hub

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"herald/notify"
)

// Cork delivers messages that come in bursts, for one goroutine: it holds back
// what Deliver sends until Uncork, so that a socket which gets several messages of
// a burst is written to once. The busier a node, the longer the bursts, and the
// cheaper each message.
//
//	read from Redis: 7 for a, 3 for b, 8 for a     Deliver, three times
//	nothing further at hand                        Uncork: write 7 8 to a, 3 to b
//
// Nothing overtakes what is held back: until then it is the socket's queue, and
// whatever else is sent to the socket goes behind it.
type Cork struct {
	hub   *Hub
	held  []*Socket // with something held back
	since int64     // Unix ns when the oldest of it was held back

	next    atomic.Int64 // the first of held that Uncork has not begun with
	helpers sync.WaitGroup
}

// NewCork returns a cork that holds nothing.
func (h *Hub) NewCork() *Cork { return &Cork{hub: h} }

// corkBytes is how much is held back for one socket: beyond, nothing is won.
const corkBytes = 16 << 10

// Deliver sends m to the user's sockets on this node, at the latest when Uncork
// is called. It never blocks and, for a user who isn't here, allocates nothing.
// userID and m.Frame may be changed when it has returned.
//
// A stored notification goes to the live sockets if it continues what they
// have; if something is missing before it, OnGap is called instead and m
// arrives with the repair. Resuming sockets read it from the log.
func (c *Cork) Deliver(userID string, m notify.Frame) {
	h := c.hub
	u := h.user(userID)
	if u == nil {
		h.stats.absent.Add(1)
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if m.ID == 0 {
		if !h.sendLocked(c, u, ephemeral, m) {
			h.stats.shed.Add(1)
		}
		return
	}
	if m.ID <= u.seen && m.ID <= u.last {
		h.stats.duplicates.Add(1)
		return
	}
	u.seen = max(u.seen, m.ID)
	switch {
	case u.live == 0 || u.repairing:
	case m.Prev != u.last:
		h.behindLocked(u)
	case !h.appendLocked(c, u, m):
		h.behindLocked(u)
	}
}

// Uncork writes what is held back, with more than one processor if it is much. Like
// Deliver it never blocks.
func (c *Cork) Uncork() {
	c.next.Store(0)
	for range min(len(c.held)/uncorkShare, runtime.GOMAXPROCS(0)-1) {
		c.helpers.Go(c.uncorkSome)
	}
	c.uncorkSome()
	c.helpers.Wait()
	clear(c.held)
	c.held = c.held[:0]
}

const (
	uncorkShare = 128 // sockets that are worth one more processor
	uncorkChunk = 16  // sockets that one takes at once
)

// uncorkSome takes chunks of held until there are none left.
func (c *Cork) uncorkSome() {
	for {
		end := int(c.next.Add(uncorkChunk))
		begin := end - uncorkChunk
		if begin >= len(c.held) {
			return
		}
		for _, s := range c.held[begin:min(end, len(c.held))] {
			s.Uncork()
		}
	}
}

// hold notes that something is held back for s, and returns since when. Called
// with s.mu held.
func (c *Cork) hold(s *Socket) (since int64) {
	if len(c.held) == 0 {
		c.since = time.Now().UnixNano()
	}
	c.held = append(c.held, s)
	return c.since
}
