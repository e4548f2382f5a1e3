package hub

import (
	"context"
	"math/rand/v2"
	"time"

	"herald/notify"
)

// drainPerSecond is how many clients a draining node sends away each second if
// the time allows: a deploy must not make them all knock at once next door.
const drainPerSecond = 1000

// Drain refuses further joins and sends every client away with 4101 and a
// retryAfterMs of its own, spread over at most half of within, then waits for
// them to go. Who is still there after within, or when ctx ends, is cut off.
func (h *Hub) Drain(ctx context.Context, within time.Duration) {
	h.draining.Store(true)
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	sockets := h.all()
	spread := min(within/2, time.Duration(len(sockets))*time.Second/drainPerSecond)
	h.sendAway(ctx, sockets, spread)
	if h.sockets.Load() == 0 {
		h.signalEmpty()
	}
	select {
	case <-h.empty:
	case <-ctx.Done():
	}
	for _, s := range h.all() {
		s.End()
	}
}

func (h *Hub) sendAway(ctx context.Context, sockets []*Socket, spread time.Duration) {
	const step = 10 * time.Millisecond
	steps := int(spread/step) + 1
	t := time.NewTicker(step)
	defer t.Stop()
	for i := range steps {
		for _, s := range sockets[len(sockets)*i/steps : len(sockets)*(i+1)/steps] {
			s.Close(notify.CloseDraining, retryAfterMs(len(sockets)))
		}
		if i == steps-1 {
			return
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// retryAfterMs is a time from one second on, spread wider the more clients
// there are to take in elsewhere.
func retryAfterMs(clients int) int {
	return 1000 + rand.IntN(1000+clients)
}

func (h *Hub) signalEmpty() {
	h.drainMu.Lock()
	defer h.drainMu.Unlock()
	select {
	case <-h.empty:
	default:
		close(h.empty)
	}
}
