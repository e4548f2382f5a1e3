//go:build linux

package loop

import (
	"container/heap"
	"time"
)

// timers is a heap of timers. Owned by the loop's thread.
type timers struct{ list []timer }

type timer struct {
	at time.Duration // by Now
	f  func()
}

// At schedules f on the loop's thread at a time by Now. On the loop's thread only.
func (l *Loop) At(at time.Duration, f func()) { heap.Push(&l.timers, timer{at, f}) }

func (t *timers) next() (time.Duration, bool) {
	if len(t.list) == 0 {
		return 0, false
	}
	return t.list[0].at, true
}

// run calls what is due. Timers added meanwhile wait for the next turn.
func (t *timers) run(now time.Duration) {
	for n := len(t.list); n > 0 && len(t.list) > 0 && t.list[0].at <= now; n-- {
		heap.Pop(t).(timer).f()
	}
}

// For container/heap.

func (t *timers) Len() int           { return len(t.list) }
func (t *timers) Less(i, j int) bool { return t.list[i].at < t.list[j].at }
func (t *timers) Swap(i, j int)      { t.list[i], t.list[j] = t.list[j], t.list[i] }
func (t *timers) Push(x any)         { t.list = append(t.list, x.(timer)) }
func (t *timers) Pop() any {
	last := len(t.list) - 1
	x := t.list[last]
	t.list[last] = timer{}
	t.list = t.list[:last]
	return x
}
