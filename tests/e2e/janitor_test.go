package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/internal/testing/gatewaytest"
	"herald/internal/testing/redistest"
)

// With two nodes and locks on three Redis servers, one of them down, exactly one node
// cleans, logs what it removed, and keeps live keys.
func TestJanitorCleansOnceOverAllNodes(t *testing.T) {
	main := redistest.Start(t)
	voters := []*redistest.Server{redistest.Start(t), redistest.Start(t), redistest.Start(t)}
	var urls []string
	for _, v := range voters {
		urls = append(urls, v.URL())
	}
	voters[1].Kill()
	rdb, ctx := main.Client(), t.Context()
	rdb.ZAdd(ctx, "user:{bob}:sessions", redis.Z{Score: float64(time.Now().Add(time.Hour).UnixMilli()), Member: strings.Repeat("a", 64)})
	rdb.HSet(ctx, "user:{bob}:presence", "dead", "1 1700000000000")
	rdb.XAdd(ctx, &redis.XAddArgs{Stream: "user:{bob}:log", ID: "1700000000000-0", Values: []string{"f", "{}", "n", "1", "x", "0"}})

	env := gatewaytest.Settings(main.URL(), "HERALD_JANITOR=00:00", "HERALD_LOCK_REDIS_URLS="+strings.Join(urls, ","))
	nodes := []*gatewaytest.Gateway{gatewaytest.Start(t, env...), gatewaytest.Start(t, env...)}
	sum := func(series string) (n float64) {
		for _, g := range nodes {
			if strings.Contains(g.Admin("/metrics").Body, series) {
				n += g.Metric(series)
			}
		}
		return n
	}
	for deadline := time.Now().Add(time.Minute); sum(`herald_janitor_runs_total{result="done"}`) < 1; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("nobody cleans:\n%s\n%s", nodes[0].Log(), nodes[1].Log())
		}
	}
	for _, series := range []string{
		`herald_janitor_runs_total{result="done"}`, `herald_janitor_removed_total{kind="session_handles"}`,
		`herald_janitor_removed_total{kind="presence_notes"}`, `herald_janitor_removed_total{kind="logs"}`,
	} {
		if n := sum(series); n != 1 {
			t.Errorf("%s is %v over both nodes", series, n)
		}
	}
	if keys := rdb.Keys(ctx, "user:{bob}:*").Val(); len(keys) != 0 {
		t.Errorf("left: %q", keys)
	}
	if log := nodes[0].Log() + nodes[1].Log(); strings.Count(log, "janitor is done") != 1 || strings.Count(log, `"quorum":2`) != 2 {
		t.Errorf("logged:\n%s", log)
	}
	if n := voters[0].Client().Exists(ctx, "cron:janitor:"+time.Now().UTC().Format(time.DateOnly)).Val(); n != 1 {
		t.Error("no marker of today")
	}
	publishes := nodes[0].Publish("bob", "1")
	if publishes.ID == 0 {
		t.Error("nothing works any more")
	}
}
