//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"herald/loadtest/measure"
	"herald/loadtest/report"
	"herald/loadtest/scenario"
	"herald/loadtest/target"
)

// idle measures all servers' idle connections side by side, each with a load
// generator of its own, since one process may not open as many sockets. They
// connect one after another and are then measured at the same time, in which
// they need a few percent of a core together.
func (c *comparison) idle(ctx context.Context) (err error) {
	c.pr.of("idle")
	program, err := c.builder.Build(ctx)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "loadtest")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	var all []*idler
	defer func() {
		for _, i := range all {
			i.child.Stop()
		}
	}()
	for _, kind := range c.kinds {
		if kind == target.ArticleUnlimited {
			continue // the same server
		}
		c.pr.phase(fmt.Sprintf("%s, %d sockets", kind.Title(), c.plan.idle.connections), 10*time.Second)
		i, err := c.startIdler(ctx, kind, program, dir)
		if errors.Is(err, context.Canceled) || kind == target.Herald && err != nil {
			return err
		}
		if err != nil {
			c.note("%s, idle: %v", kind.Title(), err)
			continue
		}
		all = append(all, i)
	}
	c.pr.phase("holding all of them", c.plan.idle.hold)
	for _, i := range all {
		if err := i.child.Say("\n"); err != nil {
			return err
		}
	}
	for _, i := range all {
		run, err := i.result(ctx, c.plan.idle.hold)
		if err != nil {
			c.note("%s, idle: %v", i.kind.Title(), err)
			continue
		}
		c.done(i.kind, scenario.PartIdle, run)
	}
	return nil
}

// idler is another process of this program, in the middle of its idle scenario.
type idler struct {
	kind  target.Kind
	child *target.Child
	file  string // where it writes its results
}

func (c *comparison) startIdler(ctx context.Context, kind target.Kind, gateway, dir string) (*idler, error) {
	i := &idler{kind: kind, file: filepath.Join(dir, string(kind)+".json")}
	var err error
	i.child, err = target.StartChild("the idle scenario of "+kind.Title(), c.program, "idle", "--hold", "--quiet",
		"--start="+string(kind), "--program="+gateway, "--json="+i.file,
		fmt.Sprintf("--connections=%d", c.plan.idle.connections), "--duration="+c.plan.idle.hold.String())
	if err != nil {
		return nil, err
	}
	line, err := i.child.Line(ctx, time.Minute)
	if err == nil && line != holding {
		err = fmt.Errorf("it says %q", line)
	}
	if err != nil {
		i.child.Stop()
		return nil, err
	}
	return i, nil
}

// result waits for the end of the scenario.
func (i *idler) result(ctx context.Context, hold time.Duration) (*measure.Run, error) {
	if err := i.child.Wait(ctx, hold+30*time.Second); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(i.file)
	if err != nil {
		return nil, err
	}
	var r report.Report
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, err
	}
	if len(r.Results) != 1 || len(r.Results[0].Runs) != 1 {
		return nil, errors.New("no result")
	}
	return r.Results[0].Runs[0], nil
}
