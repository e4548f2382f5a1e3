package cache

import (
	"sync"
	"time"
)

// work is what runs in the background: loads, and refreshes of stale keys.
type work struct {
	// Static after construction.
	most int // refreshes at once

	group sync.WaitGroup

	mu         sync.Mutex
	closed     bool                // guarded by mu
	running    int                 // guarded by mu; refreshes
	skipped    uint64              // guarded by mu; refreshes that were put off
	refreshing map[string]struct{} // guarded by mu; whose refresh runs, or ended without success a moment ago
}

func (w *work) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
}

// begin counts a load in, unless the cache is closed; it ends with group.Done.
func (w *work) begin() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		w.group.Add(1)
	}
	return !w.closed
}

// beginRefresh reports whether key should be refreshed now; then endRefresh must
// follow.
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

// endRefresh lets the next refresh of key begin after pause.
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
