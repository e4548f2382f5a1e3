package broker

import (
	"context"
	"errors"
	"sync"
	"time"

	"herald/notify"
)

// Group commit (DeWitt et al., SIGMOD 1984): while calls of publish.lua are in
// flight, further publishes wait, and then go as one call. So a call does more
// the busier it gets, and what a round trip and a script cost is shared. Calls are
// made by the callers' own goroutines: whoever finds few in flight makes its own
// at once; whoever ends one takes what waits out of the line and tells the last of
// it to lead. While there is so much that publishes go together, one call at a
// time makes the largest batches; few publishes are quickest each on its own.
//
// What goes together fails apart: the script stores each for itself. A call has
// the time that its oldest publish has left, so that nobody is answered later
// than its budget says, and nothing is stored that was answered before.
type batches struct {
	mu    sync.Mutex
	calls int        // guarded by mu: in flight
	busy  bool       // guarded by mu: the latest of them is of several publishes
	line  []*pending // guarded by mu
}

// A call is of at most maxBatch publishes and maxBatchBytes of messages: Redis
// serves nobody else meanwhile.
const (
	maxAlone      = 4 // calls in flight as long as each is of one publish
	maxBatch      = 128
	maxBatchBytes = 256 << 10
)

// pending is a publish of one notification that waits for its receipt.
type pending struct {
	// Static once in line.
	draft    *notify.Draft
	deadline time.Time
	turn     chan struct{} // never closed; at most one send: decided, or told to lead

	batch []*pending // written before turn: the batch to lead, itself last

	// Written by the batch's leader, before turn.
	receipt Receipt
	err     error
}

// publishOne is Publish for one draft without an idempotency key.
func (b *Broker) publishOne(ctx context.Context, d *notify.Draft) (Receipt, error) {
	p := &pending{draft: d, deadline: time.Now().Add(b.o.Budget)}
	if b.batches.enter(p) {
		<-p.turn // for no longer than the deadlines of those before it
	}
	if p.batch != nil {
		b.lead(ctx, p.batch)
	}
	return p.receipt, p.err
}

// enter gives p a batch of its own, or puts it in line and returns true.
func (q *batches) enter(p *pending) (queued bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.calls < maxAlone && !q.busy {
		q.calls++
		p.batch = []*pending{p}
		return false
	}
	p.turn = make(chan struct{}, 1)
	q.line = append(q.line, p)
	return true
}

// pass ends a leader's call: the next batch gets its leader.
func (q *batches) pass() {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := nextBatch(q.line)
	if n == 0 {
		q.calls--
		q.busy = q.busy && q.calls > 0
		return
	}
	q.busy = n > 1
	batch := q.line[:n:n]
	if q.line = q.line[n:]; len(q.line) == 0 {
		q.line = nil
	}
	leader := batch[n-1]
	leader.batch = batch
	leader.turn <- struct{}{}
}

func nextBatch(line []*pending) int {
	bytes := 0
	for i, p := range line {
		if bytes += len(p.draft.Message); i == maxBatch || i > 0 && bytes > maxBatchBytes {
			return i
		}
	}
	return len(line)
}

// lead publishes for the whole batch, of which the caller is the last, and passes
// the lead on, even if the client panics.
func (b *Broker) lead(ctx context.Context, batch []*pending) {
	self := batch[len(batch)-1]
	done := false
	defer func() {
		b.batches.pass()
		if !done {
			settle(batch, self, func(p *pending, _ int) { p.err = unavailable("publish", errPanicked) })
		}
	}()
	receipts, err := b.publishBatch(ctx, batch)
	done = true
	settle(batch, self, func(p *pending, i int) {
		switch {
		case err != nil:
			p.err = err
		case receipts[i].refused():
			p.err = unavailable("publish", errRefused)
		default:
			p.receipt = receipts[i]
		}
	})
}

// settle decides all of a batch and wakes those who wait.
func settle(batch []*pending, self *pending, decide func(p *pending, i int)) {
	for i, p := range batch {
		decide(p, i)
		if p != self {
			p.turn <- struct{}{}
		}
	}
}

func (b *Broker) publishBatch(ctx context.Context, batch []*pending) ([]Receipt, error) {
	drafts := make([]notify.Draft, len(batch))
	for i, p := range batch {
		drafts[i] = *p.draft
	}
	left := time.Until(batch[0].deadline)
	ctx, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	c := b.newCall(drafts, Idempotency{}, nil, left)
	c.mode = apart
	receipts, _, err := c.publish(ctx, b, len(drafts))
	return receipts, err
}

var (
	errPanicked = errors.New("the Redis client panicked")
	errRefused  = errors.New("Redis refused to store it")
)
