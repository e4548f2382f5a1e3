package broker

import (
	"context"
	"sync"
	"testing"

	"github.com/alicebob/miniredis/v2"

	"herald/notify"
)

// lateLocal is a node whose only live socket leaves during a repair, while
// another one goes live.
type lateLocal struct {
	mu    sync.Mutex
	asked int // guarded by mu: times Position was asked
	got   []notify.ID
	done  chan struct{} // closed when the repair has ended for good
}

func (l *lateLocal) UserIDs(func(string) bool)         {}
func (l *lateLocal) Repair(string, notify.ID) bool     { return true }
func (l *lateLocal) Target(string) notify.ID           { return 0 }
func (l *lateLocal) AwaitRoom(context.Context, string) {}

func (l *lateLocal) Position(string) (notify.ID, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	return 0, l.asked > 1 // nobody is live when it is asked first
}

func (l *lateLocal) Backfill(_ string, entries []notify.Frame) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range entries {
		l.got = append(l.got, m.ID)
	}
}

func (l *lateLocal) Repaired(string, notify.ID, notify.ID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.asked == 1 {
		return false // somebody has gone live since, and more was announced
	}
	close(l.done)
	return true
}

func TestRepairGoesOnForWhoeverGoesLive(t *testing.T) {
	b := New(client(t, miniredis.RunT(t).Addr()), Options{Budget: patience})
	id := publish(t, b, draft("42", `1`))[0].ID
	local := &lateLocal{done: make(chan struct{})}
	r := NewRepairer(b, local)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	ended := make(chan struct{})
	go func() { defer close(ended); r.Run(ctx) }()
	r.User("42")
	select {
	case <-local.done:
	case <-ctx.Done():
		t.Error("the repair was given up")
	}
	cancel()
	<-ended
	if len(local.got) != 1 || local.got[0] != id {
		t.Errorf("delivered %v, want %d", local.got, id)
	}
}
