//go:build linux

package main

import (
	"context"
	"time"

	"herald/loadtest/scenario"
)

// common are the flags of every scenario.
type common struct {
	serverFlags
	loadFlags
	thresholdFlags
	outputFlags
}

func (c common) play(name string) *play {
	return &play{
		name: name, serverFlags: c.serverFlags, loadFlags: c.loadFlags, thresholdFlags: c.thresholdFlags, outputFlags: c.outputFlags,
	}
}

// manySockets lets one user have any number.
const manySockets = "--max-connections-per-user=0"

type idleCmd struct {
	common
	Hold bool `hidden:"" help:"Wait for a line on standard input before the sockets are held."`
}

// Run is called by kong, as are the others.
func (c idleCmd) Run(ctx context.Context, line commandLine) error {
	p := c.play("idle")
	p.run, p.defaults = scenario.Idle, loadFlags{Connections: 15000, Duration: time.Minute, Runs: 1, Publishers: 16}
	if c.Hold {
		p.hold = onCommand
	}
	return p.all(ctx, line)
}

type connectCmd struct{ common }

func (c connectCmd) Run(ctx context.Context, line commandLine) error {
	p := c.play("connect")
	p.run = scenario.Connect
	return p.all(ctx, line)
}

type publishCmd struct{ common }

func (c publishCmd) Run(ctx context.Context, line commandLine) error {
	p := c.play("publish")
	p.run = scenario.Publish
	return p.all(ctx, line)
}

type redisCmd struct {
	common
	Stored bool `help:"The gateway's own stored frames: a second node publishes in batches, the one that is measured only delivers. Not with --target."`
}

func (c redisCmd) Run(ctx context.Context, line commandLine) error {
	p := c.play("redis")
	p.run = scenario.Redis
	if c.Stored {
		p.name, p.run, p.second = "redis --stored", scenario.Stored, true
	}
	return p.all(ctx, line)
}

type fanoutCmd struct{ common }

func (c fanoutCmd) Run(ctx context.Context, line commandLine) error {
	p := c.play("fanout")
	p.run, p.gateway = scenario.Fanout, []string{manySockets}
	return p.all(ctx, line)
}

type mixCmd struct{ common }

func (c mixCmd) Run(ctx context.Context, line commandLine) error {
	p := c.play("mix")
	p.run, p.defaults = scenario.Mix, loadFlags{Rate: 1000, Duration: 15 * time.Second, Publishers: 64}
	return p.all(ctx, line)
}

type stormCmd struct{ common }

func (c stormCmd) Run(ctx context.Context, line commandLine) error {
	p := c.play("storm")
	p.run, p.defaults = scenario.Storm, loadFlags{Abreast: 512}
	return p.all(ctx, line)
}

type soakCmd struct{ common }

func (c soakCmd) Run(ctx context.Context, line commandLine) error {
	p := c.play("soak")
	p.run, p.defaults = scenario.Soak, loadFlags{Duration: 10 * time.Minute, WarmUp: 5 * time.Second, Runs: 1, Publishers: 64}
	return p.all(ctx, line)
}

type slowCmd struct{ common }

func (c slowCmd) Run(ctx context.Context, line commandLine) error {
	p := c.play("slow")
	p.run, p.defaults = scenario.Slow, loadFlags{Users: 20, Message: 4096, Rate: 1000, Duration: 20 * time.Second, Runs: 1, Publishers: 64}
	return p.all(ctx, line)
}
