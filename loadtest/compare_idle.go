//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"herald/loadtest/scenario"
	"herald/loadtest/target"
)

// idle measures the idle connections of all servers side by side. Each server has
// its own load generator, because one process may not open enough sockets. They
// connect one after another and are then measured at the same time: together they
// use a few percent of a core.
func (c *comparison) idle(ctx context.Context) error {
	c.pr.of("idle")
	var all []*runner
	defer func() {
		for _, i := range all {
			i.child.Stop()
		}
	}()
	for _, kind := range c.kinds {
		if kind == target.BaselineUnlimited {
			continue // the same server
		}
		c.pr.phase(fmt.Sprintf("%s, %d sockets", kind.Title(), c.plan.idle.connections), 10*time.Second)
		i, err := c.startIdler(ctx, kind)
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
		if err := i.child.SendText("\n"); err != nil {
			return err
		}
	}
	for _, i := range all {
		run, err := i.result(ctx, c.plan.idle.hold+30*time.Second)
		if err != nil {
			c.note("%s, idle: %v", i.kind.Title(), err)
			continue
		}
		c.done(i.kind, scenario.PartIdle, run)
	}
	return nil
}

func (c *comparison) startIdler(ctx context.Context, kind target.Kind) (*runner, error) {
	r, err := c.startRunner(kind, "idle", "--hold", fmt.Sprintf("--connections=%d", c.plan.idle.connections), "--duration="+c.plan.idle.hold.String())
	if err != nil {
		return nil, err
	}
	line, err := r.child.Line(ctx, time.Minute)
	if err == nil && line != holding {
		err = fmt.Errorf("the child printed %q instead of %q", line, holding)
	}
	if err != nil {
		r.child.Stop()
		return nil, err
	}
	return r, nil
}
