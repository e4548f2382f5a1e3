package hub

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"herald/notify"
)

// Cork coalesces the writes of a burst of messages: Deliver queues, Uncork writes, so
// that a socket which gets several messages of a burst is written to once. The
// busier a node, the longer the bursts, and the cheaper each message. A Cork is for
// one goroutine.
//
//	read from Redis: 7 for a, 3 for b, 8 for a     Deliver, three times
//	nothing further at hand                        Uncork: write 7 8 to a, 3 to b
//
// Order is kept: a corked frame is in the socket's queue, and what is sent to the
// socket meanwhile is appended to it.
type Cork struct {
	hub    *Hub
	corked []*Socket // sockets that Uncork must write to
	since  int64     // Unix ns when the first of them was corked

	next    atomic.Int64 // index of the first of corked that Uncork has not begun with
	helpers sync.WaitGroup
}

// NewCork returns a cork for one goroutine, such as the subscription's.
func (h *Hub) NewCork() *Cork { return &Cork{hub: h} }

// corkBytes is how many bytes are corked for one socket; longer writes gain nothing.
const corkBytes = 16 << 10

// Deliver sends m to the user's sockets on this node, at the latest when Uncork
// is called. It never blocks, and allocates nothing for a user without sockets here.
// The caller may reuse the memory of userID and m.JSON afterwards.
//
// A stored notification goes to the live sockets if it continues what they
// have. If something is missing before it, Deliver calls Options.OnGap instead and m
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

// Uncork writes what Deliver has queued, on several processors if there are many
// sockets. Like Deliver it never blocks.
func (c *Cork) Uncork() {
	c.next.Store(0)
	for range min(len(c.corked)/uncorkShare, runtime.GOMAXPROCS(0)-1) {
		c.helpers.Go(c.uncorkSome)
	}
	c.uncorkSome()
	c.helpers.Wait()
	clear(c.corked)
	c.corked = c.corked[:0]
}

const (
	uncorkShare = 128 // sockets for each further processor
	uncorkChunk = 16  // sockets that a processor takes at once
)

// uncorkSome takes chunks of corked until none is left.
func (c *Cork) uncorkSome() {
	for {
		end := int(c.next.Add(uncorkChunk))
		begin := end - uncorkChunk
		if begin >= len(c.corked) {
			return
		}
		for _, s := range c.corked[begin:min(end, len(c.corked))] {
			s.Uncork()
		}
	}
}

// addLocked records that s is corked, and returns since when. Called with s.mu held.
func (c *Cork) addLocked(s *Socket) (since int64) {
	if len(c.corked) == 0 {
		c.since = time.Now().UnixNano()
	}
	c.corked = append(c.corked, s)
	return c.since
}
