//go:build linux

package main

import (
	"context"
	"time"

	"github.com/alecthomas/kong"

	"herald/loadtest/measure"
	"herald/loadtest/scenario"
)

// scenarioCmd holds the flags of every scenario.
type scenarioCmd struct {
	serverFlags
	loadFlags
	thresholdFlags
	outputFlags
	Hold bool `hidden:"" help:"Wait for a line on standard input before measuring idle sockets."`
}

// spec describes a scenario.
type spec struct {
	run         func(context.Context, *scenario.Env, scenario.Options) (*measure.Run, error)
	defaults    scenario.Options
	runs        int      // default 3
	gateway     []string // further flags of a gateway started for it
	twoGateways bool     // publish on one gateway, open the sockets on a second one
}

// anySockets removes the limit of sockets per user.
const anySockets = "--max-connections-per-user=0"

// specs holds the scenarios by the name of their command.
var specs = map[string]spec{
	"idle":    {run: scenario.Idle, defaults: scenario.Options{Connections: 15000, Duration: time.Minute, Publishers: 16}, runs: 1},
	"connect": {run: scenario.Connect},
	"publish": {run: scenario.Publish},
	"redis":   {run: scenario.Redis},
	"fanout":  {run: scenario.Fanout, gateway: []string{anySockets}},
	"mix":     {run: scenario.Mix, defaults: scenario.Options{Rate: 1000, Duration: 15 * time.Second, Publishers: 64}},
	"storm":   {run: scenario.Storm, defaults: scenario.Options{Concurrency: 512}},
	"soak":    {run: scenario.Soak, defaults: scenario.Options{Duration: 10 * time.Minute, WarmUp: 5 * time.Second, Publishers: 64}, runs: 1},
	"slow":    {run: scenario.Slow, defaults: scenario.Options{Users: 20, Message: 4096, Rate: 1000, Duration: 20 * time.Second, Publishers: 64}, runs: 1},
}

// Run is called by kong.
func (c scenarioCmd) Run(ctx context.Context, parsed *kong.Context, line commandLine) error {
	name := parsed.Selected().Name
	return (&measurement{name, specs[name], c}).execute(ctx, line)
}

type redisCmd struct {
	scenarioCmd
	Stored bool `help:"Deliver the gateway's own stored frames: a second gateway publishes batches, and the measured one only delivers. Not with --target."`
}

// Run is called by kong.
func (c redisCmd) Run(ctx context.Context, parsed *kong.Context, line commandLine) error {
	if !c.Stored {
		return c.scenarioCmd.Run(ctx, parsed, line)
	}
	return (&measurement{"redis --stored", spec{run: scenario.Stored, twoGateways: true}, c.scenarioCmd}).execute(ctx, line)
}
