package cache

import (
	"sync"
	"time"
)

// work tracks running loads and background refreshes.
type work struct {
	// Static after construction.
	most int // concurrent refreshes

	group sync.WaitGroup

	mu         sync.Mutex
	closed     bool                // guarded by mu
	running    int                 // guarded by mu; refreshes
	skipped    uint64              // guarded by mu; refreshes beyond most
	refreshing map[string]struct{} // guarded by mu; keys whose refresh runs or is in its backoff
}

func (w *work) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
}

// begin registers a load, which must end with group.Done. It is false if the cache is
// closed.
func (w *work) begin() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		w.group.Add(1)
	}
	return !w.closed
}

// beginRefresh reports whether key should be refreshed now. If so, the caller must call
// endRefresh.
func (w *work) beginRefresh(key string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, busy := w.refreshing[key]; busy || w.closed {
		return false
	}
	if w.running == w.most {
		w.skipped++
		return false
	}
	w.running++
	w.refreshing[key] = struct{}{}
	w.group.Add(1)
	return true
}

// endRefresh allows the next refresh of key after pause.
func (w *work) endRefresh(key string, pause time.Duration) {
	defer w.group.Done()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running--
	if pause <= 0 {
		delete(w.refreshing, key)
		return
	}
	time.AfterFunc(pause, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.refreshing, key)
	})
}

func (w *work) skippedRefreshes() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.skipped
}
