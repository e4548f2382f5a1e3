package lock

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/go-redsync/redsync/v4"
)

// lease is one acquisition of a lock, from acquire to release.
type lease struct {
	// Static after startExtending.
	l        *Locker
	resource string
	ttl      time.Duration
	budget   time.Duration // of a node, for one step
	token    Token
	ctx      context.Context // of the caller's function
	cancel   context.CancelCauseFunc
	expire   *time.Timer        // cancels ctx when the validity ends
	stop     context.CancelFunc // stops the extending goroutine
	stopped  chan struct{}      // closed when the extending goroutine has returned

	// Owned by the extending goroutine until stopped is closed, then by release.
	mutex *redsync.Mutex

	lost atomic.Bool
}

// startExtending starts the goroutine that extends the lock until stopExtending.
// The lock is extended beyond the end of the function's context: the function is
// still winding down then, and no other process may start.
func (h *lease) startExtending() {
	h.expire = time.AfterFunc(time.Until(h.mutex.Until()), h.lose)
	ctx, stop := context.WithCancel(context.WithoutCancel(h.ctx))
	h.stop = stop
	go func() {
		defer close(h.stopped)
		h.extendUntilDone(ctx)
	}()
}

func (h *lease) lose() {
	h.lost.Store(true)
	h.cancel(ErrLost)
}

// extendWithin is the remaining validity at which the lock is extended.
func (h *lease) extendWithin() time.Duration { return min(h.l.o.ExtendWithin, h.ttl/3) }

func (h *lease) extendUntilDone(ctx context.Context) {
	pause := time.Until(h.mutex.Until()) - h.extendWithin()
	for sleep(ctx, pause) && !h.lost.Load() {
		ok, err := h.extend(ctx)
		switch {
		case ok:
			h.l.extended.Add(1)
			h.expire.Reset(time.Until(h.mutex.Until()))
			pause = time.Until(h.mutex.Until()) - h.extendWithin()
		case errors.As(err, new(*redsync.ErrTaken)):
			h.lose() // a majority holds another value
			return
		default:
			pause = h.extendWithin() / 10
		}
	}
}

// extend tries once. Its time limit leaves room for a second try within the validity.
func (h *lease) extend(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, min(h.budget, h.extendWithin()/3))
	defer cancel()
	return h.mutex.ExtendContext(ctx)
}

// stopExtending stops the goroutine, waits for it, and reports whether the lock was
// lost before.
func (h *lease) stopExtending() (lost bool) {
	h.stop()
	<-h.stopped
	h.expire.Stop()
	return h.lost.Load() || !time.Now().Before(h.mutex.Until())
}

// release cancels the function's context and deletes the lock's key on every node
// where it still has this lease's value. It may follow a panic.
func (h *lease) release() {
	h.stopExtending()
	h.cancel(nil)
	h.unlock()
}

// unlock uses a fresh context: the caller's may have ended, and the resource must
// not stay locked because of that.
func (h *lease) unlock() {
	ctx, cancel := context.WithTimeout(context.Background(), h.budget)
	defer cancel()
	if ok, err := h.mutex.UnlockContext(ctx); !ok {
		h.l.unreleased.Add(1)
		h.l.o.Log.Warn("lock not released; it expires after its TTL", "resource", h.resource, "ttl", h.ttl, "error", err)
	}
}

// sleep waits for d and reports whether ctx lasted that long.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
