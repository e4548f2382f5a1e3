//go:build linux

// Command loadtest measures a gateway from outside, and beside others. It speaks
// only the wire protocol.
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
	Idle    idleCmd    `cmd:"" help:"Open 15,000 sockets, use each once, then hold them: memory and processor time per connection."`
	Connect connectCmd `cmd:"" help:"Open 5,000 sockets, 32 at once: connects a second, and what each costs."`
	Publish publishCmd `cmd:"" help:"Publish over HTTP to 5,000 users with a socket each: as fast as 32 publishers can, or with --rate on an open-loop schedule."`
	Redis   redisCmd   `cmd:"" help:"PUBLISH straight to users' channels: what the way from Redis to the sockets takes, at most or with --rate on an open-loop schedule."`
	Fanout  fanoutCmd  `cmd:"" help:"Publish to one user with 5,000 sockets: the next as soon as all have one, or with --rate on an open-loop schedule."`
	Mix     mixCmd     `cmd:"" help:"Single notifications and batches, 1,000 requests a second, while 50 sockets a second are lost and resume."`
	Storm   stormCmd   `cmd:"" help:"5,000 sockets are lost at once, and come back at once for what they missed."`
	Soak    soakCmd    `cmd:"" help:"The mix for ten minutes at 60 % of the maximum: memory, goroutines and descriptors must not grow."`
	Slow    slowCmd    `cmd:"" help:"Ten sockets stop reading: the others must not notice, and those must miss nothing when they come back."`
	Compare compareCmd `cmd:"" help:"The gateway beside the article's Node server, socket.io and nchan: one table, with ratios."`

	RawWrite rawWriteCmd `cmd:"" hidden:""`
}

// Exit codes.
const (
	exitFailed = 1 // it could not be measured
	exitUsage  = 2
	exitMissed = 3 // it was measured, and a threshold was missed
)

const description = `Measures a notification gateway from outside, by the wire protocol alone.

Without --target a Redis and the gateway of this checkout are started for each
run and stopped afterwards. Load that is not given is the scenario's own; the
report names it. Latencies are from the intended time of an open-loop schedule.
Exit codes: 0, 1 it could not be measured, 2 bad usage, 3 a threshold was missed.`

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	var c cli
	app, err := kong.New(&c, kong.Name("loadtest"), kong.Description(description), kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{WrapUpperBound: 110, Compact: true}))
	if err != nil {
		return complain(err, exitUsage)
	}
	parsed, err := app.Parse(args)
	if err != nil {
		return complain(err, exitUsage)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	parsed.BindTo(ctx, (*context.Context)(nil))
	switch err := parsed.Run(command(args)); {
	case err == nil:
		return 0
	case errors.Is(err, errMissed):
		return complain(err, exitMissed)
	case errors.Is(err, errUsage):
		return complain(err, exitUsage)
	default:
		return complain(err, exitFailed)
	}
}

// command is the command line as a report may show it: without the secret.
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

func complain(err error, code int) int {
	fmt.Fprintln(os.Stderr, "loadtest:", err)
	return code
}

// rawWriteCmd is the process that raw writes are measured in.
type rawWriteCmd struct {
	Sockets int `arg:""`
}

// Run is called by kong.
func (c rawWriteCmd) Run() error { return target.RawWriter(c.Sockets, os.Stdin, os.Stdout) }
