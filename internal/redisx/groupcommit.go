// Package pipeline sends the scripts of concurrent callers to Redis together.
package redisx

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// Client is a Redis client whose EvalSha shares round trips, and with it whatever
// runs a redis.Script. While few calls are in flight each goes by itself, at once.
// While there are more, they wait for the one batch that is in flight, and then go
// as one pipeline: the busier it gets, the less each costs on both sides. What goes
// together fails apart, unless the connection fails.
//
// It is like go-redis's own AutoPipeline, but heeds the deadlines of contexts and
// adds no wait where there is no crowd.
//
// It is for scripts that a caller waits for, not for those that keep Redis busy:
// whoever stands in line waits for those before it. A call ends no later than its
// context does, whatever the others'; as with any Redis call, a script whose caller
// has given up may still be run.
type Client struct {
	redis.UniversalClient

	mu    sync.Mutex
	calls int     // guarded by mu: in flight
	busy  bool    // guarded by mu: one of them is a batch
	line  []*call // guarded by mu
}

const (
	maxAlone = 4  // calls in flight as long as each goes by itself
	maxBatch = 64 // scripts in one pipeline
)

// call is one script that waits for its answer.
type call struct {
	ctx  context.Context
	cmd  *redis.Cmd    // the batch's until done is closed, then the caller's
	done chan struct{} // closed when cmd has its answer
}

// New returns a client that sends by rdb.
func New(rdb redis.UniversalClient) *Client { return &Client{UniversalClient: rdb} }

// EvalSha implements redis.Scripter.
func (c *Client) EvalSha(ctx context.Context, sha1 string, keys []string, args ...any) *redis.Cmd {
	k := &call{ctx: ctx, cmd: evalSha(ctx, sha1, keys, args)}
	if !c.enter(k) {
		defer c.leave()
		_ = c.Process(ctx, k.cmd) // the answer is in cmd
		return k.cmd
	}
	select {
	case <-k.done:
		return k.cmd
	case <-ctx.Done():
		c.withdraw(k)
		gone := redis.NewCmd(ctx)
		gone.SetErr(ctx.Err())
		return gone
	}
}

func evalSha(ctx context.Context, sha1 string, keys []string, args []any) *redis.Cmd {
	all := make([]any, 0, 3+len(keys)+len(args))
	all = append(all, "evalsha", sha1, len(keys))
	for _, k := range keys {
		all = append(all, k)
	}
	return redis.NewCmd(ctx, append(all, args...)...)
}

// enter puts k in line and returns true, unless it may go at once.
func (c *Client) enter(k *call) (queued bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls < maxAlone && !c.busy {
		c.calls++
		return false
	}
	k.done = make(chan struct{})
	c.line = append(c.line, k)
	return true
}

// withdraw takes k out of the line, if it still stands there.
func (c *Client) withdraw(k *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(c.line, k); i >= 0 {
		c.line = slices.Delete(c.line, i, i+1)
	}
}

// leave ends a call that went by itself.
func (c *Client) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls--
	c.nextLocked()
}

// nextLocked sends what waits, unless a batch is in flight.
func (c *Client) nextLocked() {
	if c.busy || len(c.line) == 0 {
		return
	}
	n := min(len(c.line), maxBatch)
	batch := c.line[:n:n]
	if c.line = c.line[n:]; len(c.line) == 0 {
		c.line = nil
	}
	c.calls++
	c.busy = true
	go c.send(batch)
}

// send sends a batch and hands out the answers, whatever happens.
func (c *Client) send(batch []*call) {
	defer func() {
		if v := recover(); v != nil {
			for _, k := range batch {
				k.cmd.SetErr(fmt.Errorf("the Redis client panicked: %v", v))
			}
		}
		c.mu.Lock()
		c.calls--
		c.busy = false
		c.nextLocked()
		c.mu.Unlock()
		for _, k := range batch {
			close(k.done)
		}
	}()
	ctx, cancel := latest(batch)
	defer cancel()
	_, _ = c.Pipelined(ctx, func(p redis.Pipeliner) error { // the answers are in the commands
		for _, k := range batch {
			_ = p.Process(ctx, k.cmd)
		}
		return nil
	})
}

// latest is the context of the caller who waits longest: the others leave before.
func latest(batch []*call) (context.Context, context.CancelFunc) {
	var until time.Time
	for _, k := range batch {
		d, ok := k.ctx.Deadline()
		if !ok {
			return context.Background(), func() {}
		}
		if d.After(until) {
			until = d
		}
	}
	return context.WithDeadline(context.Background(), until)
}
