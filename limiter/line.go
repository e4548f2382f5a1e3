package limiter

import (
	"context"
	"sync"
	"time"
)

// maxBatch bounds the costs of one script run, and with it how long the run
// keeps Redis's other clients waiting.
const maxBatch = 256

// While a call for a subject is in flight, further requests for that subject
// wait in its line; then all of them go as one call, in order of arrival. So a
// subject has at most one call in flight from this node, and a call does more
// the busier it gets. Calls are made by the callers' own goroutines: whoever
// finds no line makes its call at once; whoever ends a call takes the next
// batch out of the line and tells the last of that batch to lead it. The last,
// because its deadline is the latest: it is due no earlier than any other that
// waits for the same answer, so nobody fails open early for another's sake.
type lines struct {
	mu   sync.Mutex
	busy map[string][]*request // guarded by mu; key present: its subject has a leader
}

// request is one Allow that had to ask.
type request struct {
	// Static once in a line.
	cost     int
	deadline time.Time
	turn     chan struct{} // never closed; at most one send: decided, or told to lead

	batch []*request // set under lines.mu, before turn: the batch to lead, itself last
	gone  bool       // guarded by lines.mu: gave up, and is not asked for if still in line

	decision Decision // written by the batch's leader, before turn
}

// enter puts r last in key's line and returns true. Where there is no line it
// returns false: r leads at once, and the line that forms behind it is its to pass on.
func (ls *lines) enter(key string, r *request) (queued bool) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	line, busy := ls.busy[key]
	if busy {
		r.turn = make(chan struct{}, 1)
		line = append(line, r)
	}
	ls.busy[key] = line
	return busy
}

// leave takes r out of its line. False: r was told to lead, and must. Where
// another already leads a batch with r in it, its cost may be counted.
func (ls *lines) leave(r *request) bool {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	r.gone = true
	return r.batch == nil
}

// pass ends a leader's turn: the next batch gets its leader, or the line ends.
func (ls *lines) pass(key string) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	batch, rest := nextBatch(ls.busy[key])
	if len(batch) == 0 {
		delete(ls.busy, key)
		return
	}
	ls.busy[key] = rest
	leader := batch[len(batch)-1]
	leader.batch = batch
	leader.turn <- struct{}{}
}

// nextBatch splits off the first maxBatch requests that still wait.
func nextBatch(line []*request) (batch, rest []*request) {
	for i, r := range line {
		if len(batch) == maxBatch {
			return batch, line[i:]
		}
		if !r.gone {
			batch = append(batch, r)
		}
	}
	return batch, nil
}

func (l *Limiter) decide(ctx context.Context, key string, n int) Decision {
	r := &request{cost: n, deadline: time.Now().Add(l.budget)}
	if l.lines.enter(key, r) {
		return l.await(ctx, key, r)
	}
	return l.lead(ctx, key, []*request{r})
}

// await sees to it that r neither outwaits its budget nor drops a batch it was
// told to lead. As leader it is asked for by others too, so that its own caller
// giving up no longer ends the call; its deadline does.
func (l *Limiter) await(ctx context.Context, key string, r *request) Decision {
	timer := time.NewTimer(time.Until(r.deadline))
	defer timer.Stop()
	err := context.DeadlineExceeded
	select {
	case <-r.turn:
	case <-timer.C:
		if l.lines.leave(r) {
			return l.failOpen(r.cost, err)
		}
	case <-ctx.Done():
		if l.lines.leave(r) {
			return l.failOpen(r.cost, context.Cause(ctx))
		}
	}
	if r.batch != nil {
		return l.lead(context.WithoutCancel(ctx), key, r.batch)
	}
	return r.decision
}

// lead asks for the whole batch, hands everyone its decision, and passes the
// lead on, even if the client panics: those waiting then give up by themselves.
func (l *Limiter) lead(ctx context.Context, key string, batch []*request) Decision {
	defer l.lines.pass(key)
	self := batch[len(batch)-1]
	ctx, cancel := context.WithDeadline(ctx, self.deadline)
	defer cancel()
	got, err := l.window.ask(ctx, key, costs(batch))
	for i, r := range batch {
		if err != nil {
			r.decision = l.failOpen(r.cost, err)
		} else {
			r.decision = l.decision(r.cost, got.verdict(i))
		}
		if r != self {
			r.turn <- struct{}{}
		}
	}
	return self.decision
}

func costs(batch []*request) []int {
	all := make([]int, len(batch))
	for i, r := range batch {
		all[i] = r.cost
	}
	return all
}
