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

	"herald/internal/redisx"
	"herald/notify"
)

// call is one run of a publish script. Its memory is reused by later calls.
type call struct {
	script *luaScript
	until  time.Time // when the publisher gives up
	wait   bool      // for replicas

	keys  []string
	items []byte // ARGV[3]
	tails []byte // ARGV[4]
	last  *notify.Draft
	extra []byte // ARGV[6] of publishbatch.lua and publishtickets.lua
	print string // ARGV[6] of publish.lua

	// Arguments are passed as pointers, because boxing a pointer in any does not allocate.
	args    []any
	texts   [3]string
	numbers [5]int64
}

var calls = sync.Pool{New: func() any { return new(call) }}

// newCall prepares a run of s for publishers that give up after budget. It must be
// released.
func newCall(s *luaScript, budget time.Duration) *call {
	c := calls.Get().(*call)
	*c = call{
		script: s, until: time.Now().Add(budget),
		keys: c.keys[:0], items: c.items[:0], tails: c.tails[:0], extra: c.extra[:0], args: c.args[:0],
	}
	return c
}

// add appends a notification. d must not change before release.
func (c *call) add(d *notify.Draft) {
	c.keys = append(c.keys, logKey(d.UserID), stateKey(d.UserID), expiringKey(d.UserID))
	size := 0
	if c.last == nil || !sameTail(d, c.last) {
		before := len(c.tails)
		c.tails = notify.AppendTail(c.tails, d)
		size = len(c.tails) - before
	}
	c.last = d
	kind, number := kindOf(d)
	c.items = append(append(c.items, d.UserID...), ',')
	c.items = append(strconv.AppendInt(c.items, int64(size), 10), ',')
	c.items = append(append(c.items, kind...), ',')
	c.items = append(strconv.AppendInt(c.items, number, 10), ';')
}

// kindOf returns a draft's kind and number in ARGV[3].
func kindOf(d *notify.Draft) (kind string, number int64) {
	switch {
	case d.Skip != 0:
		return kindSkip, int64(d.Skip)
	case d.Ephemeral && d.Quiet:
		return kindSkip, 0 // neither stored nor announced
	case d.Ephemeral:
		return kindEphemeral, 0
	case d.Quiet:
		return kindQuiet, d.TTL.Milliseconds()
	}
	return kindStore, d.TTL.Milliseconds()
}

func sameTail(a, b *notify.Draft) bool {
	return len(a.Message) > 0 && len(a.Message) == len(b.Message) && &a.Message[0] == &b.Message[0] &&
		a.Kind == b.Kind && a.TraceParent == b.TraceParent
}

// release gives c's memory to later calls. The client does not use it after its method
// has returned.
func (c *call) release() {
	if cap(c.tails) > keptTails || cap(c.keys) > keptKeys {
		return
	}
	clear(c.keys[:cap(c.keys)])
	clear(c.args[:cap(c.args)])
	c.last = nil
	calls.Put(c)
}

// The most memory that an unused call keeps.
const (
	keptTails = 64 << 10 // bytes
	keptKeys  = 1024
)

// publish runs the script and returns the want fields that follow the verdict and the time.
func (c *call) publish(ctx context.Context, b *Broker, want int) (_ []string, replayed bool, _ error) {
	for range 2 { // LATE reports Redis's time: try once more with a correct deadline
		v, err := c.run(ctx, b)
		if err != nil {
			return nil, false, redisx.Unavailable("publish", err)
		}
		switch verdict := v[0]; verdict {
		case verdictStored, verdictReplay:
			if len(v) != 2+want {
				return nil, false, unexpected(v)
			}
			return v[2:], verdict == verdictReplay, nil
		case verdictMismatch:
			return nil, false, ErrMismatch
		}
	}
	return nil, false, redisx.Unavailable("publish", errors.New("refused as late by Redis's clock"))
}

func unexpected(v []string) error {
	return redisx.Unavailable("publish", fmt.Errorf("unexpected reply %q", v))
}

// run runs the script and learns Redis's time from the reply.
func (c *call) run(ctx context.Context, b *Broker) ([]string, error) {
	sent := time.Now()
	c.numbers = [...]int64{
		int64(len(c.keys)), int64(b.o.LogLength), b.o.LogRetention.Milliseconds(), b.deadline(c.until), b.o.IdempotencyTTL.Milliseconds(),
	}
	c.texts = [...]string{view(c.items), view(c.tails), view(c.extra)}
	text, err := c.eval(ctx, b)
	if err != nil {
		return nil, err
	}
	v := strings.Fields(text)
	if len(v) < 2 {
		return nil, fmt.Errorf("unexpected reply %q", text)
	}
	if v[0] != verdictReplay {
		b.learnTime(v[1], sent, v[0] == verdictLate)
	}
	return v, nil
}

func (c *call) eval(ctx context.Context, b *Broker) (string, error) {
	text, err := c.evalBy(ctx, b, "evalsha", &c.script.hash)
	if redis.HasErrorPrefix(err, "NOSCRIPT") {
		return c.evalBy(ctx, b, "eval", &c.script.source)
	}
	return text, err
}

func (c *call) evalBy(ctx context.Context, b *Broker, command string, script *string) (string, error) {
	cmd := c.command(ctx, b, command, script)
	if c.wait {
		return b.evalAndWait(ctx, cmd)
	}
	_ = b.rdb.Process(ctx, cmd) // Text returns its error
	return cmd.Text()
}

// command is EVAL or EVALSHA.
func (c *call) command(ctx context.Context, b *Broker, name string, script *string) *redis.Cmd {
	n := &c.numbers
	c.args = append(c.args[:0], name, script, &n[0])
	for i := range c.keys {
		c.args = append(c.args, &c.keys[i])
	}
	c.args = append(c.args, &n[1], &n[2], &c.texts[0], &c.texts[1], &n[3])
	if c.script == &b.publishScript {
		c.args = append(c.args, &c.print, &n[4])
	} else {
		c.args = append(c.args, &c.texts[2])
	}
	cmd := redis.NewCmd(ctx, c.args...)
	cmd.SetFirstKeyPos(3)
	return cmd
}

// evalAndWait runs the script and WAIT on one connection, because WAIT counts the replicas
// that have all writes of its own connection.
func (b *Broker) evalAndWait(ctx context.Context, cmd *redis.Cmd) (string, error) {
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
	if verdict, _, _ := strings.Cut(text, " "); err != nil || verdict != verdictStored && verdict != verdictReplay {
		return text, err
	}
	if n, err := wait.Int(); err != nil || n < b.o.WaitReplicas {
		return "", fmt.Errorf("%d of %d replicas have it: %w", n, b.o.WaitReplicas, errors.Join(errReplicas, err))
	}
	return text, nil
}

// errReplicas means stored and announced, but on too few replicas to be safe.
var errReplicas = errors.New("too few replicas")
