package server

import (
	"context"
	"sync"
)

// tally counts goroutines that start at any time, also while somebody waits for
// them, which sync.WaitGroup does not allow.
type tally struct {
	mu   sync.Mutex
	n    int
	zero chan struct{} // guarded by mu: made by wait, closed when n is 0
}

// run runs f in a goroutine of its own.
func (t *tally) run(f func()) {
	t.mu.Lock()
	t.n++
	t.mu.Unlock()
	go func() {
		defer t.done()
		f()
	}()
}

func (t *tally) done() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n--; t.n == 0 && t.zero != nil {
		close(t.zero)
		t.zero = nil
	}
}

// wait waits until none runs, or ctx ends.
func (t *tally) wait(ctx context.Context) error {
	t.mu.Lock()
	if t.n == 0 {
		t.mu.Unlock()
		return nil
	}
	if t.zero == nil {
		t.zero = make(chan struct{})
	}
	zero := t.zero
	t.mu.Unlock()
	select {
	case <-zero:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
