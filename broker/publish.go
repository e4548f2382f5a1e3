package broker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"herald/internal/redisx"
	"herald/notify"
)

// Receipt is what became of one notification.
type Receipt struct {
	ID    notify.ID   // 0 if ephemeral or skipped
	Nodes int         // subscriptions that Redis announced it to
	Skip  notify.Skip // why it was not published; 0: it was

	LeftOut bool // PublishTickets found no ticket for it; the other fields are zero
}

// Idempotency makes a publish happen once. The zero value means that each call
// is a publish of its own.
type Idempotency struct {
	Client string // whose key it is: keys of different clients never meet
	Key    string // as the client sent it
	Print  string // fingerprint of the request: the same key with another one is refused
}

// RecordKey is the Redis key that a publish with this key creates, in the step that
// stores and announces. It exists for Options.IdempotencyTTL.
func (i Idempotency) RecordKey() string {
	h := sha256.Sum256([]byte(i.Key))
	return idempotencyKey(i.Client, hex.EncodeToString(h[:]))
}

// Publish stores and announces the drafts, all or none, in one script and one
// round trip, and returns a receipt for each, in order. With an idempotency key
// that was used before it returns the first receipts and replayed == true.
//
// A draft's message and those of the drafts before it may be the same slice:
// one notification for many users travels to Redis once.
//
// After redisx.ErrUnavailable nothing has been announced, except if the answer was lost
// on its way back, or if too few replicas had it in time (Options.WaitReplicas):
// retry with the same idempotency key.
func (b *Broker) Publish(ctx context.Context, drafts []notify.Draft, idem Idempotency) (_ []Receipt, replayed bool, _ error) {
	if len(drafts) == 1 && idem.Key == "" && b.o.WaitReplicas == 0 {
		p := b.publishOne(ctx, &drafts[0], "")
		if p.err != nil {
			return nil, false, p.err
		}
		return []Receipt{p.receipt}, false, nil
	}
	return b.publishAll(ctx, drafts, idem, nil)
}

func (b *Broker) publishAll(ctx context.Context, drafts []notify.Draft, idem Idempotency, tickets []Ticket) (_ []Receipt, replayed bool, _ error) {
	call := b.newCall(drafts, idem, tickets, b.o.Budget)
	defer call.release()
	budget := b.o.Budget
	if call.waits(b) {
		budget += b.o.WaitTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	numbers, replayed, err := call.publish(ctx, b, 2*len(drafts))
	if err != nil {
		return nil, false, err
	}
	return receipts(numbers), replayed, nil
}

// publish runs the script, and returns the so many numbers that it answers with.
func (c *call) publish(ctx context.Context, b *Broker, want int) (_ []int64, replayed bool, _ error) {
	for range 2 { // a refusal as late tells Redis's time: once more with a deadline that is right
		v, err := c.run(ctx, b)
		if err != nil {
			return nil, false, redisx.Unavailable("publish", err)
		}
		switch verdict := v[0]; verdict {
		case "stored", "replay":
			n, err := integers(v[2:])
			if err != nil || len(n) != want {
				return nil, false, redisx.Unavailable("publish", fmt.Errorf("unexpected reply %q", v))
			}
			return n, verdict == "replay", nil
		case "mismatch":
			return nil, false, ErrMismatch
		}
	}
	return nil, false, redisx.Unavailable("publish", errors.New("refused as late by Redis's clock"))
}

// deadline is until by Redis's clock, in ms, less what an answer may take: a
// publish that comes later is refused, and one that comes just in time is still
// told so. Without any knowledge of Redis's clock there is none.
func (b *Broker) deadline(until time.Time) int64 {
	offset := b.offset.Load()
	if offset == 0 {
		return int64(notify.MaxID)
	}
	back := min(answerTime, b.o.Budget/8)
	return offset + until.Add(-back).Sub(b.start).Milliseconds()
}

// answerTime is more than an answer takes unless something is wrong.
const answerTime = 25 * time.Millisecond

// learnTime notes Redis's time, taken while a call that began at sent was under
// way: as of now it is later by at most the length of the call, so deadlines err
// on the early side. A long call teaches nothing unless it must, or nothing is
// known: where every call is long there would never be a deadline.
func (b *Broker) learnTime(ms string, sent time.Time, must bool) {
	n, err := strconv.ParseInt(ms, 10, 64)
	if err == nil && (must || b.offset.Load() == 0 || time.Since(sent) < b.o.Budget/20) {
		b.offset.Store(n - time.Since(b.start).Milliseconds())
	}
}

// receipts reads an id and a number of subscriptions for each.
func receipts(n []int64) []Receipt {
	list := make([]Receipt, len(n)/2)
	for i := range list {
		list[i] = Receipt{ID: notify.ID(n[2*i]), Nodes: int(n[2*i+1])}
		switch skip := -n[2*i+1]; {
		case skip == 1:
			list[i].LeftOut, list[i].Nodes = true, 0
		case skip > 1:
			list[i].Skip, list[i].Nodes = notify.Skip(skip), 0
		}
	}
	return list
}
