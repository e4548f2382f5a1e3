package hub

import (
	"sync"
	"time"
)

// wheel is a hashed timing wheel (Varghese and Lauck, SOSP 1987): one goroutine
// and one lock for the pings, deadlines and expiries of every socket. A timer
// fires within one tick after it is due.
type wheel struct {
	mu    sync.Mutex
	slots [wheelSlots]timer // guarded by mu: sentinels of doubly linked rings
	now   int64             // guarded by mu: the last tick that was done

	start time.Time
	quit  chan struct{} // closed by stop
	done  chan struct{} // closed when the goroutine has exited
}

const (
	wheelTick  = 50 * time.Millisecond
	wheelSlots = 1024 // a turn of 51.2 s: nearly every timer is due within one
)

// timer is a socket's place in the wheel.
type timer struct {
	socket     *Socket // static
	prev, next *timer  // guarded by wheel.mu; nil when not scheduled
	at         int64   // guarded by wheel.mu: the tick when it is due
	canceled   bool    // guarded by wheel.mu: for good
}

func newWheel() *wheel {
	w := &wheel{start: time.Now(), quit: make(chan struct{}), done: make(chan struct{})}
	for i := range w.slots {
		w.slots[i].prev, w.slots[i].next = &w.slots[i], &w.slots[i]
	}
	go w.run()
	return w
}

func (w *wheel) stop() {
	close(w.quit)
	<-w.done
}

func (w *wheel) run() {
	defer close(w.done)
	t := time.NewTicker(wheelTick)
	defer t.Stop()
	for {
		select {
		case <-w.quit:
			return
		case <-t.C:
			w.advance(time.Now())
		}
	}
}

// tickAt rounds up: a timer never fires early.
func (w *wheel) tickAt(at time.Time) int64 {
	return int64((at.Sub(w.start) + wheelTick - 1) / wheelTick)
}

// schedule makes t fire at the given time, unless it is scheduled earlier: a tick
// finds out what is due and returns when the next one is.
func (w *wheel) schedule(t *timer, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	tick := max(w.tickAt(at), w.now+1)
	if t.canceled || (t.next != nil && t.at <= tick) {
		return
	}
	w.unlinkLocked(t)
	w.linkLocked(t, tick)
}

// cancel removes t, and schedule ignores it from then on.
func (w *wheel) cancel(t *timer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t.canceled = true
	w.unlinkLocked(t)
}

func (w *wheel) linkLocked(t *timer, tick int64) {
	head := &w.slots[tick%wheelSlots]
	t.at, t.prev, t.next = tick, head.prev, head
	head.prev.next, head.prev = t, t
}

func (w *wheel) unlinkLocked(t *timer) {
	if t.next != nil {
		t.prev.next, t.next.prev = t.next, t.prev
		t.prev, t.next = nil, nil
	}
}

// advance fires what is due up to now, ticks that were missed included.
func (w *wheel) advance(now time.Time) {
	current := int64(now.Sub(w.start) / wheelTick)
	var due []*timer
	w.mu.Lock()
	// After a pause of more than a turn each slot is looked at once.
	for tick := max(w.now+1, current-wheelSlots+1); tick <= current; tick++ {
		due = w.takeDueLocked(due, &w.slots[tick%wheelSlots], current)
	}
	w.now = max(w.now, current)
	w.mu.Unlock()
	for _, t := range due {
		if next := t.socket.tick(now); !next.IsZero() {
			w.schedule(t, next)
		}
	}
}

func (w *wheel) takeDueLocked(due []*timer, head *timer, current int64) []*timer {
	for t := head.next; t != head; {
		next := t.next
		if t.at <= current {
			w.unlinkLocked(t)
			due = append(due, t)
		}
		t = next
	}
	return due
}
