package redisx

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Group implements group commit (DeWitt et al., SIGMOD 1984): concurrent callers of Do
// share round trips. Up to four calls go alone, at once. Further items queue, and go together
// as one batch; at most one batch is in flight, so the queue keeps its order. The busier
// it gets, the more a batch holds. Callers send batches themselves; a Group starts no
// goroutine. The zero value is not usable: set the fields, then do not change them.
//
// A caller whose context ends while its item is queued withdraws the item and gets the
// context's error; the item is never sent. Once the item is in flight, cancelling has no
// effect: the caller gets the answer, or context.DeadlineExceeded when its own deadline
// passes. Each batch is sent by the caller with the latest deadline, so no deadline of
// another caller ends it early.
type Group[T any] struct {
	MaxItems  int         // of one batch
	MaxWeight int         // of one batch of more than one item, in the unit of Weight; 0: no limit
	Weight    func(T) int // required with MaxWeight

	// Send sends items and stores each answer where its caller finds it. The slice is
	// valid until Send returns. ctx ends at the sender's deadline; for a batch it is not
	// cancelled. If Send panics, each of its callers gets an error instead.
	Send func(ctx context.Context, items []T)

	mu    sync.Mutex
	calls int          // guarded by mu: calls of Send in flight
	busy  bool         // guarded by mu: one of them sends what was queued
	queue []*queued[T] // guarded by mu
	pool  sync.Pool    // of *queued[T] without references
}

// maxAlone is how many calls are in flight while each item still goes alone.
const maxAlone = 4

// queued is one caller of Do.
type queued[T any] struct {
	// Static while queued.
	ctx  context.Context
	item T

	turn   chan struct{} // never closed; one send: answered, or to send batch
	batch  []*queued[T]  // guarded by Group.mu until turn: what to send, this caller's item included
	shared bool          // written before turn: the batch was queued
	items  []T           // memory for Send
	err    error         // written before turn
}

// Do sends item, alone or in a batch. After nil the answer is where Send stored it.
// After an error the item was withdrawn or has no answer in time; then the caller must
// not touch it again, because Send may still use it.
func (g *Group[T]) Do(ctx context.Context, item T) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	q, _ := g.pool.Get().(*queued[T])
	if q == nil {
		q = &queued[T]{turn: make(chan struct{}, 1)}
	}
	q.ctx, q.item = ctx, item
	if g.enter(q) {
		if left, err := g.await(q); left {
			return err // a sender may still hold q
		}
	}
	if len(q.batch) > 0 {
		g.send(q)
	}
	err := q.err
	clear(q.batch)
	clear(q.items)
	*q = queued[T]{turn: q.turn, batch: q.batch[:0], items: q.items[:0]}
	g.pool.Put(q)
	return err
}

// Queued returns how many items wait to be sent.
func (g *Group[T]) Queued() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.queue)
}

// enter queues q and returns true, unless q may go alone.
func (g *Group[T]) enter(q *queued[T]) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.calls < maxAlone && !g.busy {
		g.calls++
		q.batch = append(q.batch, q)
		return false
	}
	g.queue = append(g.queue, q)
	return true
}

// await waits for q's turn; left reports that q's caller gives up with err.
func (g *Group[T]) await(q *queued[T]) (left bool, err error) {
	select {
	case <-q.turn:
		return false, nil
	case <-q.ctx.Done():
	}
	withdrawn, sends := g.withdraw(q)
	if withdrawn {
		return true, q.ctx.Err()
	}
	if sends {
		<-q.turn
		return false, nil
	}
	ctx, cancel := uncancelled(q.ctx)
	defer cancel()
	select {
	case <-q.turn:
		return false, nil
	case <-ctx.Done():
		return true, ctx.Err()
	}
}

// withdraw takes q out of the queue. If q is in flight instead, sends reports whether
// its caller has to send the batch.
func (g *Group[T]) withdraw(q *queued[T]) (withdrawn, sends bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if i := slices.Index(g.queue, q); i >= 0 {
		g.queue = slices.Delete(g.queue, i, i+1)
		return true, false
	}
	return false, len(q.batch) > 0
}

// send sends q's batch, lets the next batch go, and wakes the other callers.
func (g *Group[T]) send(q *queued[T]) {
	var err error
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("the Redis client panicked: %v", v)
		}
		g.next(q.shared)
		for _, other := range q.batch {
			other.err = err
			if other != q {
				other.turn <- struct{}{}
			}
		}
	}()
	ctx := q.ctx
	if len(q.batch) > 1 {
		var cancel context.CancelFunc
		ctx, cancel = uncancelled(ctx)
		defer cancel()
	}
	for _, other := range q.batch {
		q.items = append(q.items, other.item)
	}
	g.Send(ctx, q.items)
}

// next ends a call of Send, and gives what is queued a sender unless it has one.
func (g *Group[T]) next(shared bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.calls--
	g.busy = g.busy && !shared
	if g.busy || len(g.queue) == 0 {
		return
	}
	n := g.batchLenLocked()
	sender := latest(g.queue[:n])
	sender.batch = append(sender.batch, g.queue[:n]...)
	sender.shared = true
	g.queue = slices.Delete(g.queue, 0, n)
	g.calls++
	g.busy = true
	sender.turn <- struct{}{}
}

// batchLenLocked is how many items the next batch takes off the queue.
func (g *Group[T]) batchLenLocked() int {
	weight := 0
	for i, q := range g.queue {
		if i == g.MaxItems {
			return i
		}
		if g.MaxWeight > 0 {
			if weight += g.Weight(q.item); i > 0 && weight > g.MaxWeight {
				return i
			}
		}
	}
	return len(g.queue)
}

// latest returns the caller with the latest deadline, of equal ones the last: its
// answer is due no earlier than any other's.
func latest[T any](batch []*queued[T]) *queued[T] {
	var sender *queued[T]
	var until time.Time
	for _, q := range slices.Backward(batch) {
		d, ok := q.ctx.Deadline()
		if !ok {
			return q
		}
		if sender == nil || d.After(until) {
			sender, until = q, d
		}
	}
	return sender
}

// uncancelled returns a context that ends only at ctx's deadline.
func uncancelled(ctx context.Context) (context.Context, context.CancelFunc) {
	d, ok := ctx.Deadline()
	ctx = context.WithoutCancel(ctx)
	if !ok {
		return ctx, func() {}
	}
	return context.WithDeadline(ctx, d)
}
