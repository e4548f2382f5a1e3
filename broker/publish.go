package broker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"time"

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
// is a separate publish.
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

// Publish stores and announces the drafts, all or none, in one script and one round trip.
// It returns a receipt for each draft, in order. With an idempotency key that was used
// before it returns the first receipts and replayed == true. One draft without a key may
// share its round trip with other publishes.
//
// Drafts may share a message: consecutive drafts with the same slice send it once.
//
// A context that ends before the publish is sent withdraws it. After redisx.ErrUnavailable
// nothing has been announced, unless the reply was lost or too few replicas acknowledged in
// time (Options.WaitReplicas): retry with the same idempotency key.
func (b *Broker) Publish(ctx context.Context, drafts []notify.Draft, idem Idempotency) (_ []Receipt, replayed bool, _ error) {
	if len(drafts) == 1 && idem.Key == "" && b.o.WaitReplicas == 0 {
		r, _, err := b.publishOne(ctx, &drafts[0], "")
		if err != nil {
			return nil, false, err
		}
		return []Receipt{r}, false, nil
	}
	budget := b.o.Budget
	c := newCall(&b.publishScript, budget)
	defer c.release()
	for i := range drafts {
		c.add(&drafts[i])
	}
	if idem.Key != "" {
		c.print = idem.Print
		c.keys = append(c.keys, idem.RecordKey())
	}
	if c.wait = b.o.WaitReplicas > 0; c.wait {
		budget += b.o.WaitTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	return c.receipts(ctx, b, len(drafts))
}

// receipts publishes n notifications.
func (c *call) receipts(ctx context.Context, b *Broker, n int) (_ []Receipt, replayed bool, _ error) {
	v, replayed, err := c.publish(ctx, b, 2*n)
	if err != nil {
		return nil, false, err
	}
	list := make([]Receipt, n)
	for i := range list {
		if list[i], err = readReceipt(v[2*i], v[2*i+1]); err != nil {
			return nil, false, unexpected(v)
		}
	}
	return list, replayed, nil
}

// readReceipt reads an outcome and its number.
func readReceipt(outcome, number string) (Receipt, error) {
	n, err := strconv.Atoi(number)
	if err != nil {
		return Receipt{}, err
	}
	switch outcome {
	case outcomeSkipped:
		return Receipt{Skip: notify.Skip(n)}, nil
	case outcomeLeftOut:
		return Receipt{LeftOut: true}, nil
	}
	if outcome == "0" && n < 0 { // a skip that 0.1.0 stored with an idempotency key
		return Receipt{Skip: notify.Skip(-n)}, nil
	}
	id, err := strconv.ParseInt(outcome, 10, 64)
	return Receipt{ID: notify.ID(id), Nodes: n}, err
}

// deadline is until by Redis's clock, in ms, less the time for the reply. Redis refuses a
// publish that arrives later, and the reply to one that arrives just in time still reaches
// the publisher. While Redis's clock is unknown there is no deadline.
func (b *Broker) deadline(until time.Time) int64 {
	offset := b.offset.Load()
	if offset == 0 {
		return int64(notify.MaxID)
	}
	back := min(answerTime, b.o.Budget/8)
	return offset + until.Add(-back).Sub(b.start).Milliseconds()
}

// answerTime is longer than a reply takes unless something is wrong.
const answerTime = 25 * time.Millisecond

// learnTime records Redis's time, which it took during a call that began at sent. The
// recorded offset is too small by at most the length of the call, so deadlines err on the
// early side. The time of a long call is used only if must is set or no time is known yet;
// otherwise there would never be a deadline where every call is long.
func (b *Broker) learnTime(ms string, sent time.Time, must bool) {
	n, err := strconv.ParseInt(ms, 10, 64)
	if err == nil && (must || b.offset.Load() == 0 || time.Since(sent) < b.o.Budget/20) {
		b.offset.Store(n - time.Since(b.start).Milliseconds())
	}
}
