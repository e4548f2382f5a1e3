package server

import (
	"context"
	"sync"
)

// tally counts what begins at any time, also while somebody waits for its end,
// which sync.WaitGroup does not allow: streams, and goroutines that work for them.
type tally struct {
	mu   sync.Mutex
	n    int
	zero chan struct{} // guarded by mu: made by wait, closed when n is 0
}

// run runs f in a goroutine of its own.
func (t *tally) run(f func()) {
	t.enter()
	go func() {
		defer t.leave()
		f()
	}()
}

func (t *tally) enter() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n++
}

func (t *tally) leave() {
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
