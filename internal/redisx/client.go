package redisx

import (
	"context"

	"github.com/redis/go-redis/v9"
)

// Client is a Redis client whose EvalSha, and with it any redis.Script, shares round
// trips: concurrent scripts go as one pipeline, by the rules of Group. Each script fails
// alone, unless the connection fails. It differs from go-redis's AutoPipeline in that
// it respects the deadline of each context and adds no delay while there is little load.
//
// Use it for short scripts that a caller waits for: scripts behind a slow one wait too.
// As with any Redis call, Redis may still run a script whose caller's deadline passed
// while it was in flight.
type Client struct {
	redis.UniversalClient
	scripts Group[*redis.Cmd]
}

// maxScripts is the most scripts in one pipeline.
const maxScripts = 64

// New returns a client that sends through rdb.
func New(rdb redis.UniversalClient) *Client {
	c := &Client{UniversalClient: rdb}
	c.scripts = Group[*redis.Cmd]{MaxItems: maxScripts, Send: c.send}
	return c
}

// EvalSha implements redis.Scripter.
func (c *Client) EvalSha(ctx context.Context, sha1 string, keys []string, args ...any) *redis.Cmd {
	cmd := evalSha(ctx, sha1, keys, args)
	if err := c.scripts.Do(ctx, cmd); err != nil {
		cmd = redis.NewCmd(ctx) // a pipeline may still write to the other
		cmd.SetErr(err)
	}
	return cmd
}

func evalSha(ctx context.Context, sha1 string, keys []string, args []any) *redis.Cmd {
	all := make([]any, 0, 3+len(keys)+len(args))
	all = append(all, "evalsha", sha1, len(keys))
	for _, k := range keys {
		all = append(all, k)
	}
	return redis.NewCmd(ctx, append(all, args...)...)
}

// send leaves the answers, errors included, in the commands.
func (c *Client) send(ctx context.Context, cmds []*redis.Cmd) {
	if len(cmds) == 1 {
		_ = c.Process(ctx, cmds[0])
		return
	}
	_, _ = c.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, cmd := range cmds {
			_ = p.Process(ctx, cmd)
		}
		return nil
	})
}
