// Command gateway runs Herald: a real-time notification gateway.
package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

type cli struct {
	settings
	Serve       struct{}         `cmd:"" default:"1" help:"Run the gateway (the default command)."`
	Healthcheck struct{}         `cmd:"" help:"Check that the gateway on this machine is ready; exit code 0 or 1."`
	Doctor      doctorCommand    `cmd:"" help:"Examine Redis and this machine and suggest changes; exit code 1 if one is required."`
	Version     kong.VersionFlag `env:"-" help:"Print the version and exit."`
}

const description = `Herald, a self-hosted real-time notification gateway.

Browsers connect over WebSocket or SSE, backends POST notifications, and any
number of nodes share only Redis. Every flag can be given as a HERALD_* variable of
the same name: --publish-limit is HERALD_PUBLISH_LIMIT.`

func main() { os.Exit(run(os.Args[1:])) }

// run returns the exit code: 0 after a clean stop, 1 after a failure, 2 for a bad
// setting. One line on standard error tells the reason.
func run(args []string) int {
	var c cli
	app := kong.Must(&c, kong.Name("gateway"), kong.Description(description), kong.DefaultEnvars("HERALD"),
		kong.Vars{"version": programVersion()}, kong.ConfigureHelp(kong.HelpOptions{WrapUpperBound: 110}))
	if err := unknownVariable(app, os.Environ()); err != nil {
		return complain(err, 2)
	}
	parsed, err := app.Parse(args)
	if err != nil {
		return complain(namingVariable(err), 2)
	}
	cfg, err := c.config()
	if err != nil {
		return complain(err, 2)
	}
	if parsed.Command() == "doctor" {
		return c.Doctor.run(cfg, os.Stdout)
	}
	if err := cfg.requireKeys(); err != nil {
		return complain(err, 2)
	}
	if parsed.Command() == "healthcheck" {
		if err := healthcheck(cfg.Listen); err != nil {
			return complain(err, 1)
		}
		return 0
	}
	return serve(cfg)
}

func serve(cfg config) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	log := newLog(cfg)
	g, err := newGateway(cfg, log)
	if err != nil {
		return complain(err, 1)
	}
	if cfg.embedded {
		fmt.Print(banner(cfg, g.listener.Addr().String()))
	}
	if err := g.Run(ctx); err != nil {
		log.Error("stopped", "error", err)
		return 1
	}
	log.Info("stopped")
	return 0
}

func complain(err error, code int) int {
	fmt.Fprintln(os.Stderr, "gateway:", err)
	return code
}

func newLog(cfg config) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(cfg.LogLevel)) // kong has checked it
	o := &slog.HandlerOptions{Level: level}
	if cfg.LogFormat == "text" || cfg.LogFormat == "auto" && isTerminal(os.Stderr) {
		return slog.New(slog.NewTextHandler(os.Stderr, o))
	}
	return slog.New(slog.NewJSONHandler(os.Stderr, o))
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func randomHex(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
