package broker

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"herald/internal/redisx"
	"herald/internal/testing/redistest"
	"herald/notify"
)

// TestPatterns: what is published there arrives; one that Redis's rules forbid is
// done without, and logged once for however many subscriptions.
func TestPatterns(t *testing.T) {
	const kept, forbidden = "kept:*", "forbidden:*"
	server := redistest.Start(t)
	admin := server.Client()
	if err := admin.Do(t.Context(), "ACL", "SETUSER", "sub", "on", ">password", "~*", "+@all",
		"resetchannels", "&"+channelPattern, "&herald:*", "&"+kept).Err(); err != nil {
		t.Fatal(err)
	}
	sub := NewSubscriber(redisx.Configure(&redis.Options{Addr: server.Addr, Username: "sub", Password: "password"}, 0))
	t.Cleanup(func() { _ = sub.Close() })

	var log bytes.Buffer // written by Listen alone
	b := New(admin, Options{Budget: patience, Log: slog.New(slog.NewTextHandler(&log, nil))})
	heard, messages, subscribed := make(chan string, 10), make(chan string, 10), make(chan struct{}, 10)
	hear := func(channel, payload string) { heard <- channel + " " + payload }
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.Listen(ctx, sub, Handlers{
			Deliver:    func(user string, _ notify.Frame) { messages <- strings.Clone(user) },
			Subscribed: func() { subscribed <- struct{}{} },
			Patterns:   map[string]func(string, string){kept: hear, forbidden: hear},
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	for range 2 {
		<-subscribed
		admin.Publish(t.Context(), "forbidden:1", "a")
		admin.Publish(t.Context(), "kept:1", "b")
		if got := <-heard; got != "kept:1 b" {
			t.Errorf("heard %q", got)
		}
		publish(t, b, draft("42", `1`))
		if got := <-messages; got != "42" {
			t.Errorf("a message for %q", got)
		}
		if err := admin.Do(t.Context(), "CLIENT", "KILL", "TYPE", "pubsub").Err(); err != nil {
			t.Fatal(err)
		}
	}
	<-subscribed
	cancel()
	<-done
	if n := strings.Count(log.String(), "forbids"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, log.String())
	}
}

func TestListenRefusesMissingHandlers(t *testing.T) {
	deliver, subscribed := func(string, notify.Frame) {}, func() {}
	for name, h := range map[string]Handlers{
		"no Deliver":      {Subscribed: subscribed},
		"no Subscribed":   {Deliver: deliver},
		"nil for channel": {Deliver: deliver, Subscribed: subscribed, Channels: map[string]func(string){"x": nil}},
		"nil for pattern": {Deliver: deliver, Subscribed: subscribed, Patterns: map[string]func(string, string){"x*": nil}},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if v, _ := recover().(string); !strings.Contains(v, "broker: Handlers.") {
					t.Errorf("panicked with %q", v)
				}
			}()
			New(nil, Options{}).Listen(t.Context(), nil, h)
		})
	}
}
