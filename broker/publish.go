package broker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/notify"
)

// Receipt is what became of one notification.
type Receipt struct {
	ID    notify.ID   // 0 if ephemeral or skipped
	Nodes int         // subscriptions that Redis announced it to
	Skip  notify.Skip // why it was not published; 0: it was
}

// Idempotency makes a publish happen once. The zero value means that each call
// is a publish of its own.
type Idempotency struct {
	Client string // whose key it is: keys of different clients never meet
	Key    string // as the client sent it
	Print  string // fingerprint of the request: the same key with another one is refused
}

// Publish stores and announces the drafts, all or none, in one script and one
// round trip, and returns a receipt for each, in order. With an idempotency key
// that was used before it returns the first receipts and replayed == true.
//
// A draft's message and those of the drafts before it may be the same slice:
// one notification for many users travels to Redis once.
//
// After ErrUnavailable nothing has been announced, except if the answer was lost
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
			return nil, false, unavailable("publish", err)
		}
		switch verdict := v[0]; verdict {
		case "stored", "replay":
			n, err := integers(v[2:])
			if err != nil || len(n) != want {
				return nil, false, unavailable("publish", fmt.Errorf("unexpected reply %q", v))
			}
			return n, verdict == "replay", nil
		case "mismatch":
			return nil, false, ErrMismatch
		}
	}
	return nil, false, unavailable("publish", errors.New("refused as late by Redis's clock"))
}

// call is one run of publish.lua.
type call struct {
	keys    []string
	lengths []byte
	tails   []byte
	print   string
	until   time.Time // when the publisher gives up
	mode    []byte    // ARGV[8]: nothing, apart, or tickets
	held    bool      // it has tickets
}

// apart is the mode of publishes that fail each for itself.
const apart = "apart"

// newCall prepares a run for publishers that give up after budget.
func (b *Broker) newCall(drafts []notify.Draft, idem Idempotency, tickets []Ticket, budget time.Duration) *call {
	c := &call{
		keys:  make([]string, 0, 3*len(drafts)+len(tickets)+1),
		print: idem.Print, until: time.Now().Add(budget), held: tickets != nil,
	}
	c.lengths, c.tails = make([]byte, 0, 8*len(drafts)), make([]byte, 0, tailRoom(drafts))
	for i := range drafts {
		d := &drafts[i]
		c.keys = append(c.keys, logKey(d.UserID), stateKey(d.UserID), expiringKey(d.UserID))
		if tickets != nil {
			c.keys = append(c.keys, tickets[i].Key)
			c.mode = append(append(c.mode, tickets[i].Field...), ' ')
		}
		size := 0
		if i == 0 || !sameTail(d, &drafts[i-1]) {
			before := len(c.tails)
			c.tails = notify.AppendTail(c.tails, d)
			size = len(c.tails) - before
		}
		c.lengths = strconv.AppendInt(c.lengths, int64(size), 10)
		c.lengths = append(c.lengths, ',')
		c.lengths = strconv.AppendInt(c.lengths, ttlMillis(d), 10)
		if d.Quiet {
			c.lengths = append(c.lengths, 'q')
		}
		c.lengths = append(c.lengths, ';')
	}
	if idem.Key == "" {
		c.print = ""
		return c
	}
	h := sha256.Sum256([]byte(idem.Key))
	c.keys = append(c.keys, idempotencyKey(idem.Client, hex.EncodeToString(h[:])))
	return c
}

// tailRoom is about what the tails take, in bytes.
func tailRoom(drafts []notify.Draft) (n int) {
	for i := range drafts {
		if d := &drafts[i]; i == 0 || !sameTail(d, &drafts[i-1]) {
			n += len(d.Message) + len(d.Kind) + len(d.TraceParent) + 64
		}
	}
	return n
}

func sameTail(a, b *notify.Draft) bool {
	return len(a.Message) > 0 && len(a.Message) == len(b.Message) && &a.Message[0] == &b.Message[0] &&
		a.Kind == b.Kind && a.TraceParent == b.TraceParent
}

func ttlMillis(d *notify.Draft) int64 {
	switch {
	case d.Skip != 0:
		return -int64(d.Skip)
	case d.Ephemeral:
		return -1
	}
	return d.TTL.Milliseconds()
}

// run runs the script and takes Redis's time from the answer.
func (c *call) run(ctx context.Context, b *Broker) ([]string, error) {
	sent := time.Now()
	text, err := c.eval(ctx, b, []any{
		b.o.LogLength, b.o.LogRetention.Milliseconds(), c.lengths, c.tails, b.deadline(c.until),
		c.print, b.o.IdempotencyTTL.Milliseconds(), c.mode,
	})
	if err != nil {
		return nil, err
	}
	v := strings.Fields(text)
	if len(v) < 2 {
		return nil, fmt.Errorf("unexpected reply %q", text)
	}
	if v[0] != "replay" {
		b.learnTime(v[1], sent, v[0] == "late")
	}
	return v, nil
}

// waits reports whether replicas must have it. They need not for what has
// tickets: one that takes over without the publish has its ticket still.
func (c *call) waits(b *Broker) bool { return b.o.WaitReplicas > 0 && !c.held }

func (c *call) eval(ctx context.Context, b *Broker, args []any) (string, error) {
	if !c.waits(b) {
		return b.publish.Run(ctx, b.rdb, c.keys, args...).Text()
	}
	text, err := c.evalAndWait(ctx, b, args)
	if redis.HasErrorPrefix(err, "NOSCRIPT") {
		if err := b.publish.Load(ctx, b.rdb).Err(); err != nil {
			return "", err
		}
		text, err = c.evalAndWait(ctx, b, args)
	}
	return text, err
}

// evalAndWait runs the script and WAIT on one connection: WAIT counts the
// replicas that have all writes of its own connection.
func (c *call) evalAndWait(ctx context.Context, b *Broker, args []any) (string, error) {
	var script, wait *redis.Cmd
	_, err := b.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		script = b.publish.EvalSha(ctx, p, c.keys, args...)
		wait = p.Do(ctx, "WAIT", b.o.WaitReplicas, b.o.WaitTimeout.Milliseconds())
		return nil
	})
	if err != nil {
		return "", err
	}
	text, err := script.Text()
	if verdict, _, _ := strings.Cut(text, " "); err != nil || verdict != "stored" && verdict != "replay" {
		return text, err
	}
	if n, err := wait.Int(); err != nil || n < b.o.WaitReplicas {
		return "", fmt.Errorf("%d of %d replicas have it: %w", n, b.o.WaitReplicas, errors.Join(errReplicas, err))
	}
	return text, nil
}

// errReplicas: stored and announced, but not yet safe.
var errReplicas = errors.New("too few replicas")

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
		if skip := -n[2*i+1]; skip > 1 { // 1: its ticket is gone
			list[i].Skip, list[i].Nodes = notify.Skip(skip), 0
		}
	}
	return list
}
