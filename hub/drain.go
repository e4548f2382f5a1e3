package hub

import (
	"context"
	"math/rand/v2"
	"time"

	"herald/notify"
)

// drainPerSecond is how many clients a draining node closes each second if the time
// allows: after a deploy they must not all reconnect at once.
const drainPerSecond = 1000

// Drain refuses further joins and closes every socket with 4101 and a random
// retryAfterMs, spread over at most half of within. It returns when all have left;
// after within, or when ctx ends, it closes the rest without a goodbye.
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

// retryAfterMs is a random delay of at least one second; its spread grows by 1 ms for
// each client that has to reconnect.
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
