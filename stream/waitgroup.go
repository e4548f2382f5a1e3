package stream

import (
	"context"
	"sync"
)

// waitGroup is a sync.WaitGroup that may grow from zero while another goroutine
// waits, and whose wait heeds a context.
type waitGroup struct {
	mu   sync.Mutex
	n    int           // guarded by mu
	zero chan struct{} // guarded by mu: made by wait, closed when n is 0
}

// run runs f in a new goroutine.
func (g *waitGroup) run(f func()) {
	g.add()
	go func() {
		defer g.done()
		f()
	}()
}

func (g *waitGroup) add() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.n++
}

func (g *waitGroup) done() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.n--; g.n == 0 && g.zero != nil {
		close(g.zero)
		g.zero = nil
	}
}

// wait waits until n is 0 or ctx ends.
func (g *waitGroup) wait(ctx context.Context) error {
	g.mu.Lock()
	if g.n == 0 {
		g.mu.Unlock()
		return nil
	}
	if g.zero == nil {
		g.zero = make(chan struct{})
	}
	zero := g.zero
	g.mu.Unlock()
	select {
	case <-zero:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
