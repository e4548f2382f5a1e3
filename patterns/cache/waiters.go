package cache

import "sync"

// waiters are the flights of this process that wait for another process's load.
type waiters struct {
	mu     sync.Mutex
	byName map[string]*waiter // guarded by mu
}

// waiter is shared by all flights that wait for one key.
type waiter struct {
	woken chan struct{} // closed by wake
	users int           // guarded by waiters.mu; calls of wait without leave
}

// wait returns a channel that is closed by the next wake of key. The caller must call
// leave.
func (w *waiters) wait(key string) (woken <-chan struct{}, leave func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	one := w.byName[key]
	if one == nil {
		one = &waiter{woken: make(chan struct{})}
		w.byName[key] = one
	}
	one.users++
	return one.woken, func() { w.leave(key, one) }
}

func (w *waiters) leave(key string, one *waiter) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if one.users--; one.users == 0 && w.byName[key] == one {
		delete(w.byName, key)
	}
}

func (w *waiters) wake(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if one := w.byName[key]; one != nil {
		delete(w.byName, key)
		close(one.woken)
	}
}

func (w *waiters) wakeAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, one := range w.byName {
		close(one.woken)
	}
	clear(w.byName)
}
