package broker

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/notify"
)

// call is one run of publish.lua. Its memory is used again by later ones.
type call struct {
	keys    []string
	lengths []byte
	tails   []byte
	print   string
	until   time.Time // when the publisher gives up
	mode    []byte    // ARGV[8]: nothing, apart, or tickets
	held    bool      // it has tickets

	// What the command is made of: it has pointers to these, for which an any needs
	// no memory.
	args    []any
	texts   [3]string
	numbers [5]int64
}

// apart is the mode of publishes that fail each for itself.
const apart = "apart"

var calls = sync.Pool{New: func() any { return new(call) }}

// newCall prepares a run for publishers that give up after budget. It must be
// released.
func (b *Broker) newCall(drafts []notify.Draft, idem Idempotency, tickets []Ticket, budget time.Duration) *call {
	c := calls.Get().(*call)
	*c = call{
		keys: c.keys[:0], lengths: c.lengths[:0], tails: c.tails[:0], mode: c.mode[:0], args: c.args[:0],
		print: idem.Print, until: time.Now().Add(budget), held: tickets != nil,
	}
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
	c.keys = append(c.keys, idem.RecordKey())
	return c
}

// release gives c's memory to later calls. The client has done with it when its
// method returns.
func (c *call) release() {
	if cap(c.tails) > keptTails || cap(c.keys) > keptKeys {
		return
	}
	clear(c.keys[:cap(c.keys)])
	clear(c.args[:cap(c.args)])
	calls.Put(c)
}

// What a call that waits for its next use may hold.
const (
	keptTails = 64 << 10 // bytes
	keptKeys  = 1024
)

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
	c.numbers = [...]int64{
		int64(len(c.keys)), int64(b.o.LogLength), b.o.LogRetention.Milliseconds(), b.deadline(c.until), b.o.IdempotencyTTL.Milliseconds(),
	}
	c.texts = [...]string{view(c.lengths), view(c.tails), view(c.mode)}
	text, err := c.eval(ctx, b)
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

func (c *call) eval(ctx context.Context, b *Broker) (string, error) {
	text, err := c.evalBy(ctx, b, "evalsha", &b.publishHash)
	if redis.HasErrorPrefix(err, "NOSCRIPT") {
		return c.evalBy(ctx, b, "eval", &b.publishScript)
	}
	return text, err
}

func (c *call) evalBy(ctx context.Context, b *Broker, command string, script *string) (string, error) {
	if c.waits(b) {
		return c.evalAndWait(ctx, b, command, script)
	}
	cmd := c.command(ctx, command, script)
	_ = b.rdb.Process(ctx, cmd) // Text returns its error
	return cmd.Text()
}

// command is EVAL or EVALSHA.
func (c *call) command(ctx context.Context, name string, script *string) *redis.Cmd {
	n := &c.numbers
	c.args = append(c.args[:0], name, script, &n[0])
	for i := range c.keys {
		c.args = append(c.args, &c.keys[i])
	}
	c.args = append(c.args, &n[1], &n[2], &c.texts[0], &c.texts[1], &n[3], &c.print, &n[4], &c.texts[2])
	cmd := redis.NewCmd(ctx, c.args...)
	cmd.SetFirstKeyPos(3)
	return cmd
}

// evalAndWait runs the script and WAIT on one connection: WAIT counts the
// replicas that have all writes of its own connection.
func (c *call) evalAndWait(ctx context.Context, b *Broker, command string, script *string) (string, error) {
	cmd := c.command(ctx, command, script)
	var wait *redis.Cmd
	_, err := b.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		if err := p.Process(ctx, cmd); err != nil {
			return err
		}
		wait = p.Do(ctx, "WAIT", b.o.WaitReplicas, b.o.WaitTimeout.Milliseconds())
		return nil
	})
	if err != nil {
		return "", err
	}
	text, err := cmd.Text()
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
