package limiter

import (
	"context"
	_ "embed"
	"fmt"
	"strconv"
	"time"

	"herald/internal/redisx"

	"github.com/redis/go-redis/v9"
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
}

func newWindow(rdb redis.Scripter, limit Limit) window {
	return window{rdb: rdb, limit: strconv.Itoa(limit.N), length: strconv.FormatInt(limit.Per.Microseconds(), 10)}
}

// ask runs the script once for all costs, in order: one round trip, or two if Redis does not
// have the script yet. After an error the costs may still have been counted, because only
// the reply may have been lost.
func (w window) ask(ctx context.Context, key string, costs []int) (replies, error) {
	text := strconv.AppendInt(make([]byte, 0, 24), int64(costs[0]), 10)
	for _, n := range costs[1:] {
		text = strconv.AppendInt(append(text, ','), int64(n), 10)
	}
	r, err := windowScript.Run(ctx, w.rdb, []string{key}, w.limit, w.length, string(text)).Int64Slice()
	if err != nil {
		return nil, fmt.Errorf("ask window: %w", err)
	}
	if len(r) != 1+3*len(costs) {
		return nil, fmt.Errorf("ask window: %d numbers for %d costs", len(r), len(costs))
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
