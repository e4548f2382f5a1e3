//go:build linux && compare

package main

import (
	"io"
	"strings"
	"testing"
	"time"

	"herald/internal/testing/redistest"
	"herald/loadtest/scenario"
	"herald/loadtest/target"
)

// A small comparison measures every part of each server.
func TestComparison(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a gateway and a peer")
	}
	redistest.Require(t, "redis-server")
	redistest.Require(t, "node")
	const short = 200 * time.Millisecond
	p := compareCmd{Quick: true}.plan()
	p.idle, p.raw = idlePlan{connections: 40, hold: short}, short
	p.suite.Users, p.suite.Connections, p.suite.Publishers, p.suite.FixedRate = 20, 20, 2, 100
	p.suite.WarmUp, p.suite.FirstWarmUp, p.suite.Publish, p.suite.FixedRateTime, p.suite.Redis, p.suite.Fanout = short, short, short, short, short, short
	pr := startProgress(io.Discard, 0)
	defer pr.close()
	c, err := newComparison(t.Context(), p, pr, []target.Kind{target.Herald, target.Baseline})
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if err := c.all(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	r := c.report()
	for _, row := range r.Table.Rows {
		both := !strings.Contains(row.Name, "stored") && !strings.Contains(row.Name, "the delivering node") && !strings.HasPrefix(row.Name, "RSS") // memory of a few sockets is noise
		if both && (!row.Known(0) || !row.Known(1) || *row.Values[0] < 0) {
			t.Errorf("%s: %s, %s", row.Name, row.Value(0), row.Value(1))
		}
	}
	for _, result := range r.Results {
		// Two parts have a fixed rate; the others run at the maximum.
		rate, ok := result.Median(scenario.Rate)
		if paced := rate < 2*p.suite.FixedRate; ok && result.Scenario != scenario.PartConnect && paced != strings.HasPrefix(result.Scenario, scenario.PartFixedRate) {
			t.Errorf("%s, %s: %v a second", result.Server, result.Scenario, rate)
		}
		for _, worse := range []string{scenario.Lost, scenario.Errors} {
			if n, ok := result.Median(worse); ok && n != 0 {
				t.Errorf("%s, %s: %v %s", result.Server, result.Scenario, n, worse)
			}
		}
	}
}
