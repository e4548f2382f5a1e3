package lock

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/go-redsync/redsync/v4"
)

// held is a lock that this process holds, or did.
type held struct {
	// Static after keep.
	l        *Locker
	resource string
	ttl      time.Duration
	budget   time.Duration // of a node, for one step
	token    Token
	ctx      context.Context // the work's
	cancel   context.CancelCauseFunc
	expire   *time.Timer        // ends ctx when the validity is over
	stop     context.CancelFunc // ends the extending
	kept     chan struct{}      // closed when the extending has ended

	// Owned by the extending goroutine until kept is closed, then by release.
	mutex *redsync.Mutex

	lost atomic.Bool
}

// keep begins to extend the lock, until end. The work's context may end before: the
// work winds down then, and nobody else must begin.
func (h *held) keep() {
	h.expire = time.AfterFunc(time.Until(h.mutex.Until()), h.lose)
	ctx, stop := context.WithCancel(context.WithoutCancel(h.ctx))
	h.stop = stop
	go func() {
		defer close(h.kept)
		h.extendUntilDone(ctx)
	}()
}

func (h *held) lose() {
	h.lost.Store(true)
	h.cancel(ErrLost)
}

// within is how long before its end the lock is extended.
func (h *held) within() time.Duration { return min(h.l.o.ExtendWithin, h.ttl/3) }

func (h *held) extendUntilDone(ctx context.Context) {
	pause := time.Until(h.mutex.Until()) - h.within()
	for sleep(ctx, pause) && !h.lost.Load() {
		ok, err := h.extend(ctx)
		switch {
		case ok:
			h.l.extended.Add(1)
			h.expire.Reset(time.Until(h.mutex.Until()))
			pause = time.Until(h.mutex.Until()) - h.within()
		case errors.As(err, new(*redsync.ErrTaken)):
			h.lose() // a majority says that it is not ours
			return
		default:
			pause = h.within() / 10
		}
	}
}

// extend tries once. Its budget leaves time for a second try within the validity.
func (h *held) extend(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, min(h.budget, h.within()/3))
	defer cancel()
	return h.mutex.ExtendContext(ctx)
}

// end stops extending and reports whether the lock was lost before.
func (h *held) end() bool {
	h.stop()
	<-h.kept
	h.expire.Stop()
	return h.lost.Load() || !time.Now().Before(h.mutex.Until())
}

// release ends the work's context, and the lock on every node where it is still
// ours. It comes after end, unless the work has panicked.
func (h *held) release() {
	h.end()
	h.cancel(nil)
	h.unlock()
}

// unlock has a budget of its own: whatever ended the work must not keep the
// resource locked.
func (h *held) unlock() {
	ctx, cancel := context.WithTimeout(context.Background(), h.budget)
	defer cancel()
	if ok, err := h.mutex.UnlockContext(ctx); !ok {
		h.l.unreleased.Add(1)
		h.l.o.Log.Warn("lock not released; its time to live ends it", "resource", h.resource, "ttl", h.ttl, "error", err)
	}
}

// sleep reports whether ctx lasted that long.
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
