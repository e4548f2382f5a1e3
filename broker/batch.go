package broker

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"herald/internal/redisx"
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
	busy  bool       // guarded by mu: one of them is of what stood in line; there is one such at a time, so that the line keeps its order
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
	under    string // the key of admit; "": it is not asked
	deadline time.Time
	turn     chan struct{} // never closed; at most one send: decided, or told to lead

	batch []*pending // written before turn: the batch to lead, itself last
	lined bool       // written before turn: the batch stood in line

	// Written by the batch's leader, before turn.
	receipt   Receipt
	admission Admission
	err       error
}

// Admission is what admit answered for one publish, which costs 1.
type Admission struct {
	Asked   bool     // false: there was no answer, and it was let pass
	Clock   int64    // as admit tells it
	Numbers [3]int64 // the first is above 0 if it may not pass
}

// Denied reports that the publish may not pass.
func (a Admission) Denied() bool { return a.Asked && a.Numbers[0] > 0 }

// PublishAdmitted is Publish for one draft under a condition that is decided in
// the same script, before anything is stored: Options.Admit, asked under the key.
// What is denied is neither stored nor announced. It is for brokers that wait for
// no replicas; Admits says so.
func (b *Broker) PublishAdmitted(ctx context.Context, d *notify.Draft, key string) (Receipt, Admission, error) {
	p := b.publishOne(ctx, d, key)
	return p.receipt, p.admission, p.err
}

// Admits reports whether PublishAdmitted can be used.
func (b *Broker) Admits() bool { return b.o.Admit != "" && b.o.WaitReplicas == 0 }

// publishOne publishes one draft without an idempotency key.
func (b *Broker) publishOne(ctx context.Context, d *notify.Draft, under string) *pending {
	p := &pending{draft: d, under: under, deadline: time.Now().Add(b.o.Budget)}
	if b.batches.enter(p) {
		<-p.turn // for no longer than the deadlines of those before it
	}
	if p.batch != nil {
		b.lead(ctx, p.batch)
	}
	return p
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

// pass ends a leader's call, and gives what waits a leader unless it has one.
func (q *batches) pass(ended *pending) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.calls--
	q.busy = q.busy && !ended.lined
	if q.busy || len(q.line) == 0 {
		return
	}
	n := nextBatch(q.line)
	batch := q.line[:n:n]
	if q.line = q.line[n:]; len(q.line) == 0 {
		q.line = nil
	}
	q.calls++
	q.busy = true
	leader := batch[n-1]
	leader.batch, leader.lined = batch, true
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
	err := errPanicked
	defer func() {
		self := batch[len(batch)-1]
		b.batches.pass(self)
		for _, p := range batch {
			if err != nil {
				p.err = err
			}
			if p != self {
				p.turn <- struct{}{}
			}
		}
	}()
	err = b.publishBatch(ctx, batch)
}

// publishBatch notes for each of the batch what became of it.
func (b *Broker) publishBatch(ctx context.Context, batch []*pending) error {
	drafts := make([]notify.Draft, len(batch))
	for i, p := range batch {
		drafts[i] = *p.draft
	}
	left := time.Until(batch[0].deadline)
	ctx, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	c, want := b.newCall(drafts, Idempotency{}, nil, left), 2*len(batch)
	defer c.release()
	c.mode = append(c.mode, apart...)
	if c.ask(batch) {
		want += 4 * len(batch)
	}
	n, _, err := c.publish(ctx, b, want)
	if err != nil {
		return err
	}
	answers := n[2*len(batch):]
	for i, r := range receipts(n[:2*len(batch)]) {
		p := batch[i]
		if len(answers) > 0 {
			p.admission = admission([4]int64(answers[4*i:]))
		}
		switch {
		case r.ID >= 0:
			p.receipt = r
		case !p.admission.Denied():
			p.err = redisx.Unavailable("publish", errRefused)
		}
	}
	return nil
}

// ask adds to the call under which of admit's keys each of the batch is; false
// if none is under any.
func (c *call) ask(batch []*pending) (any bool) {
	numbers := map[string]int{"": 0}
	for _, p := range batch {
		number, ok := numbers[p.under]
		if !ok {
			number = len(numbers)
			numbers[p.under] = number
			c.keys = append(c.keys, p.under)
		}
		c.mode = strconv.AppendInt(append(c.mode, ' '), int64(number), 10)
	}
	if len(numbers) == 1 {
		c.mode = c.mode[:len(apart)]
	}
	return len(numbers) > 1
}

func admission(n [4]int64) Admission {
	return Admission{Asked: n[0] != 0, Clock: n[0], Numbers: [3]int64(n[1:])}
}

var (
	errPanicked = redisx.Unavailable("publish", errors.New("the Redis client panicked"))
	errRefused  = errors.New("it was refused by Redis")
)
