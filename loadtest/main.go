//go:build linux

// Command loadtest measures a gateway from outside, over the wire protocol only.
// It also compares the gateway with other notification servers.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"herald/loadtest/target"
)

type cli struct {
	Idle    scenarioCmd `cmd:"" help:"Open 15,000 sockets, use each once, then keep them idle: memory and CPU per connection."`
	Connect scenarioCmd `cmd:"" help:"Open 5,000 sockets, 32 at a time: connects per second and the cost of each."`
	Publish scenarioCmd `cmd:"" help:"Publish over HTTP to 5,000 users with one socket each: as fast as 32 publishers can, or at --rate."`
	Redis   redisCmd    `cmd:"" help:"PUBLISH on users' Redis channels: the cost of delivery from Redis to the sockets, as fast as possible or at --rate."`
	Fanout  scenarioCmd `cmd:"" help:"Publish to one user with 5,000 sockets: the next as soon as all have received one, or at --rate."`
	Mix     scenarioCmd `cmd:"" help:"1,000 requests per second, single notifications and batches, while 50 sockets per second drop and resume."`
	Storm   scenarioCmd `cmd:"" help:"Drop 5,000 sockets at once; all reconnect at once and resume."`
	Soak    scenarioCmd `cmd:"" help:"Run the mix for ten minutes at 60 % of the maximum: memory, goroutines and descriptors must not grow."`
	Slow    scenarioCmd `cmd:"" help:"Ten sockets stop reading: the others must not be affected, and the ten must miss nothing after they resume."`
	Compare compareCmd  `cmd:"" help:"The gateway beside a Node baseline (express, ws, ioredis), socket.io and nchan: one table, with ratios."`

	RawWrite rawWriteCmd `cmd:"" hidden:""`
}

// Exit codes.
const (
	exitFailed = 1 // the measurement failed
	exitUsage  = 2
	exitMissed = 3 // the measurement is complete, and a threshold was missed
)

const description = `Measures a notification gateway from outside, over the wire protocol only.

Without --target, each run starts its own Redis and the gateway of this checkout.
Load flags default to the scenario's own values; the report lists them. With
--rate, latencies count from the intended time of an open-loop schedule.
Exit codes: 0 success, 1 the measurement failed, 2 bad usage, 3 a threshold was missed.`

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	var c cli
	app, err := kong.New(&c, kong.Name("loadtest"), kong.Description(description), kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{WrapUpperBound: 110, Compact: true}))
	if err != nil {
		return fail(err, exitUsage)
	}
	parsed, err := app.Parse(args)
	if err != nil {
		return fail(err, exitUsage)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	parsed.BindTo(ctx, (*context.Context)(nil))
	switch err := parsed.Run(command(args)); {
	case err == nil:
		return 0
	case errors.Is(err, errMissed):
		return fail(err, exitMissed)
	case errors.Is(err, errUsage):
		return fail(err, exitUsage)
	default:
		return fail(err, exitFailed)
	}
}

// commandLine is the command line with the API key masked, for reports.
type commandLine string

func command(args []string) commandLine {
	shown := append([]string{"go run ./loadtest"}, args...)
	for i, a := range shown {
		if name, _, ok := strings.Cut(a, "="); ok && name == "--api-key" {
			shown[i] = "--api-key=…"
		}
		if i > 0 && shown[i-1] == "--api-key" {
			shown[i] = "…"
		}
	}
	return commandLine(strings.Join(shown, " "))
}

var (
	errMissed = errors.New("a threshold was missed")
	errUsage  = errors.New("bad usage")
)

func fail(err error, code int) int {
	fmt.Fprintln(os.Stderr, "loadtest:", err)
	return code
}

// rawWriteCmd runs the child process in which raw writes are measured.
type rawWriteCmd struct {
	Sockets int `arg:""`
}

// Run is called by kong.
func (c rawWriteCmd) Run() error { return target.RawWriter(c.Sockets, os.Stdin, os.Stdout) }
