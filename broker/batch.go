package broker

import (
	"context"
	"errors"
	"strconv"
	"time"

	"herald/internal/redisx"
	"herald/notify"
)

// A batch (redisx.Group) holds at most maxBatch publishes and maxBatchBytes of messages,
// because Redis serves no other client while the script runs.
const (
	maxBatch      = 128
	maxBatchBytes = 256 << 10
)

// pending is a publish of one notification that waits for its receipt.
type pending struct {
	// Static once queued.
	draft    *notify.Draft
	admitKey string    // of admit; "": it is not asked
	deadline time.Time // when the publisher gives up

	// Written by the batch's sender.
	receipt   Receipt
	admission Admission
	err       error
}

// Admission is admit's answer to one publish, which costs 1.
type Admission struct {
	Asked   bool     // false: admit gave no answer, and the publish was let through
	Clock   int64    // the first number that admit returned
	Numbers [3]int64 // the first is above 0 if the publish is denied
}

// Denied reports whether admit refused the publish.
func (a Admission) Denied() bool { return a.Asked && a.Numbers[0] > 0 }

// PublishAdmitted is Publish for one draft, under the condition of Options.Admit: the same
// script calls admit with key before it stores anything. A denied draft is neither stored
// nor announced, and err is nil. Use it only if Admits is true.
func (b *Broker) PublishAdmitted(ctx context.Context, d *notify.Draft, key string) (Receipt, Admission, error) {
	return b.publishOne(ctx, d, key)
}

// Admits reports whether PublishAdmitted can be used: Options.Admit is set, and publishes
// wait for no replicas.
func (b *Broker) Admits() bool { return b.o.Admit != "" && b.o.WaitReplicas == 0 }

// publishOne publishes one draft without an idempotency key.
func (b *Broker) publishOne(ctx context.Context, d *notify.Draft, admitKey string) (Receipt, Admission, error) {
	p := &pending{draft: d, admitKey: admitKey, deadline: time.Now().Add(b.o.Budget)}
	if until, ok := ctx.Deadline(); ok && until.Before(p.deadline) {
		p.deadline = until
	}
	if err := b.batches.Do(ctx, p); err != nil {
		return Receipt{}, Admission{}, redisx.Unavailable("publish", err)
	}
	return p.receipt, p.admission, p.err
}

// publishBatch publishes a batch and stores each result in its item. It takes no longer
// than the first deadline in it, so that nothing is stored after its publisher has given
// up. Deadlines are in order of arrival, apart from contexts that end earlier.
func (b *Broker) publishBatch(ctx context.Context, batch []*pending) {
	until := batch[0].deadline
	for _, p := range batch[1:] {
		if p.deadline.Before(until) {
			until = p.deadline
		}
	}
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	c := newCall(&b.batchScript, time.Until(until))
	defer c.release()
	for _, p := range batch {
		c.add(p.draft)
	}
	want := 2 * len(batch)
	if c.admit(batch) {
		want += 4 * len(batch)
	}
	v, _, err := c.publish(ctx, b, want)
	if err == nil {
		err = readBatch(batch, v)
	}
	if err != nil {
		for _, p := range batch {
			p.err = err
		}
	}
}

// admit adds each publish's key of admit. It returns false if there is none.
func (c *call) admit(batch []*pending) bool {
	numbers := map[string]int{"": 0}
	for i, p := range batch {
		number, ok := numbers[p.admitKey]
		if !ok {
			number = len(numbers)
			numbers[p.admitKey] = number
			c.keys = append(c.keys, p.admitKey)
		}
		if i > 0 {
			c.extra = append(c.extra, ' ')
		}
		c.extra = strconv.AppendInt(c.extra, int64(number), 10)
	}
	if len(numbers) == 1 {
		c.extra = c.extra[:0]
	}
	return len(numbers) > 1
}

// readBatch reads the outcomes, then the admissions if there are any.
func readBatch(batch []*pending, v []string) error {
	admissions := v[2*len(batch):]
	for i, p := range batch {
		switch outcome := v[2*i]; outcome {
		case outcomeDenied:
		case outcomeFailed:
			p.err = redisx.Unavailable("publish", errRefused)
		default:
			var err error
			if p.receipt, err = readReceipt(outcome, v[2*i+1]); err != nil {
				return unexpected(v)
			}
		}
		if len(admissions) > 0 && admissions[4*i] != unasked {
			n, err := integers(admissions[4*i : 4*i+4])
			if err != nil {
				return unexpected(v)
			}
			p.admission = Admission{Asked: true, Clock: n[0], Numbers: [3]int64(n[1:])}
		}
	}
	return nil
}

var errRefused = errors.New("it was refused by Redis")
