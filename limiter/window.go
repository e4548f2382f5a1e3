package limiter

import (
	"context"
	_ "embed"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/internal/redisx"
)

// windowKey: zset of one subject's admissions; score is the time in µs by Redis's clock,
// member is <sum>:<cost>[:<skew>] as window.lua says. Lives for one window after the newest
// entry.
func windowKey(scope, subject string) string {
	return "ratelimit:" + scope + ":" + redisx.Escape(subject)
}

//go:embed window.lua
var windowSource string

var windowScript = redis.NewScript(windowSource + "return sliding_window(KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3])\n")

// verdict is the script's decision on one cost.
type verdict struct {
	clock     time.Time     // Redis's
	wait      time.Duration // 0: admitted
	remaining int
	reset     time.Duration
}

// window calls the script for one limiter.
type window struct {
	rdb    redis.Scripter
	limit  any // ARGV[1]
	length any // ARGV[2]

	// Of Options.Merge only.
	pipeline redis.UniversalClient // rdb
	group    redisx.Group[*request]
}

func newWindow(rdb redis.Scripter, limit Limit) *window {
	return &window{rdb: rdb, limit: strconv.Itoa(limit.N), length: strconv.FormatInt(limit.Per.Microseconds(), 10)}
}

// merge prepares w for merged.
func (w *window) merge() {
	w.pipeline = w.rdb.(redis.UniversalClient)
	w.group.MaxItems, w.group.Send = maxCosts, w.send
}

// maxCosts bounds the costs of one run of the script, and so how long it keeps Redis's
// other clients waiting.
const maxCosts = 256

// request is one cost of a merged call.
type request struct {
	key   string
	cost  int
	reply replies // of this cost alone
	err   error
}

// merged is ask for one cost. Costs of concurrent callers for one key share a run of the
// script, and those for several keys a round trip.
func (w *window) merged(ctx context.Context, key string, cost int) (replies, error) {
	r := &request{key: key, cost: cost}
	if err := w.group.Do(ctx, r); err != nil {
		return nil, fmt.Errorf("ask window: %w", err)
	}
	return r.reply, r.err
}

// send implements redisx.Group's Send. The order of arrival is kept within each key.
func (w *window) send(ctx context.Context, items []*request) {
	keys, byKey := []string{}, map[string][]*request{}
	for _, r := range items {
		if byKey[r.key] == nil {
			keys = append(keys, r.key)
		}
		byKey[r.key] = append(byKey[r.key], r)
	}
	if len(keys) == 1 {
		w.answer(ctx, items)
		return
	}
	cmds := make([]*redis.Cmd, len(keys))
	_, _ = w.pipeline.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, key := range keys {
			cmds[i] = windowScript.EvalSha(ctx, p, []string{key}, w.limit, w.length, costs(byKey[key]))
		}
		return nil
	})
	for i, key := range keys {
		if redis.HasErrorPrefix(cmds[i].Err(), "NOSCRIPT") {
			w.answer(ctx, byKey[key])
		} else {
			r, err := parse(cmds[i], len(byKey[key]))
			distribute(byKey[key], r, err)
		}
	}
}

// answer runs the script for requests of one key.
func (w *window) answer(ctx context.Context, same []*request) {
	r, err := w.run(ctx, same[0].key, costs(same), len(same))
	distribute(same, r, err)
}

// distribute gives each request its part of the reply, or the error.
func distribute(same []*request, r replies, err error) {
	for i, q := range same {
		if q.err = err; err == nil {
			q.reply = replies{r[0], r[1+3*i], r[2+3*i], r[3+3*i]}
		}
	}
}

// costs returns the costs as ARGV[3] of the script.
func costs(requests []*request) string {
	text := make([]byte, 0, 4*len(requests))
	for _, r := range requests {
		if len(text) > 0 {
			text = append(text, ',')
		}
		text = strconv.AppendInt(text, int64(r.cost), 10)
	}
	return string(text)
}

// ask runs the script for one cost.
func (w *window) ask(ctx context.Context, key string, cost int) (replies, error) {
	return w.run(ctx, key, strconv.Itoa(cost), 1)
}

// run runs the script once for n comma-separated costs, in order: one round trip, or two
// if Redis does not have the script yet. After an error the costs may still have been
// counted, because only the reply may have been lost.
func (w *window) run(ctx context.Context, key, costs string, n int) (replies, error) {
	return parse(windowScript.Run(ctx, w.rdb, []string{key}, w.limit, w.length, costs), n)
}

// parse reads the reply to n costs.
func parse(cmd *redis.Cmd, n int) (replies, error) {
	r, err := cmd.Int64Slice()
	if err != nil {
		return nil, fmt.Errorf("ask window: %w", err)
	}
	if len(r) != 1+3*n {
		return nil, fmt.Errorf("ask window: %d numbers for %d costs", len(r), n)
	}
	return r, nil
}

// replies is the reply of the script: the clock, then three numbers for each cost.
type replies []int64

func (r replies) verdict(i int) verdict {
	return verdict{
		clock:     time.UnixMicro(r[0]),
		wait:      time.Duration(r[1+3*i]) * time.Microsecond,
		remaining: int(r[2+3*i]),
		reset:     time.Duration(r[3+3*i]) * time.Microsecond,
	}
}
