package broker

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"maps"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/internal/redisx"
	"herald/notify"
)

// Handlers are called by Listen, all on its receive loop. None may block, or Redis drops
// the subscription because its output buffer is full.
type Handlers struct {
	// Deliver gets each message for a user: a stored or ephemeral notification, or a read
	// frame. userID and m.JSON are valid until it returns. Required.
	Deliver func(userID string, m notify.Frame)
	// Subscribed is called after each new subscription: messages may have been missed
	// before it. Required.
	Subscribed func()
	// Idle is called when everything received has been delivered, before the next read.
	// Optional.
	Idle func()
	// Channels are further channels to subscribe to, with the handler of each. Optional;
	// no handler may be nil.
	Channels map[string]func(payload string)
	// Patterns are further patterns to subscribe to, with the handler of each. Where Redis's
	// ACL forbids one, Listen goes on without it. Optional; no handler may be nil.
	Patterns map[string]func(channel, payload string)
}

// check panics if a required handler is missing.
func (h Handlers) check() {
	if h.Deliver == nil || h.Subscribed == nil {
		panic("broker: Handlers.Deliver and Handlers.Subscribed are required")
	}
	for name, f := range h.Channels {
		if f == nil {
			panic("broker: Handlers.Channels has no handler for " + name)
		}
	}
	for name, f := range h.Patterns {
		if f == nil {
			panic("broker: Handlers.Patterns has no handler for " + name)
		}
	}
}

// SubscriptionStats counts what came over the subscription.
type SubscriptionStats struct {
	Received      uint64 // messages, canaries included
	Foreign       uint64 // plain JSON from other programs, delivered as ephemeral
	Malformed     uint64 // not JSON, too large, or on a channel that names no user: dropped
	Subscriptions uint64 // times that Listen subscribed
	Lost          uint64 // times it broke or fell silent
}

// subscription is the state of Listen that other goroutines read.
type subscription struct {
	heard         atomic.Int64 // ns since Broker.start when the canary was last heard; 0: deaf
	received      atomic.Uint64
	foreign       atomic.Uint64
	malformed     atomic.Uint64
	subscriptions atomic.Uint64
	lost          atomic.Uint64
	warnings      redisx.Throttle // of dropped messages
	forbade       atomic.Bool     // a forbidden pattern has been logged
}

// Hears reports whether this node hears its own subscription: its canary came
// back within the last three intervals.
func (b *Broker) Hears() bool {
	heard := b.sub.heard.Load()
	return heard != 0 && time.Since(b.start)-time.Duration(heard) < 3*b.o.CanaryEvery
}

// SubscriptionStats returns the counts so far.
func (b *Broker) SubscriptionStats() SubscriptionStats {
	s := &b.sub
	return SubscriptionStats{
		Received: s.received.Load(), Foreign: s.foreign.Load(), Malformed: s.malformed.Load(),
		Subscriptions: s.subscriptions.Load(), Lost: s.lost.Load(),
	}
}

// Listen keeps one subscription open on sub until ctx ends. It subscribes again whenever
// the connection breaks, or when its canary has not been heard for twice
// Options.CanaryEvery. It returns when its goroutines have exited. Listen panics at once
// if a required handler is missing.
//
// It does not use go-redis's Channel, which drops messages when its buffer is full and
// whose health check never waits for the reply. It does not use read timeouts either: one
// that fires in the middle of a message leaves the reader out of step.
func (b *Broker) Listen(ctx context.Context, sub *Subscriber, h Handlers) {
	h.check()
	if h.Idle != nil {
		sub.idle = h.Idle
	}
	r := &receiver{Broker: b, h: h}
	sub.message = r.user
	canaries := make(chan struct{})
	go func() { defer close(canaries); b.publishCanary(ctx) }()
	for wait := time.Duration(0); ctx.Err() == nil; {
		began := time.Now()
		err := r.listenOnce(ctx, sub)
		sub.idle()
		b.sub.heard.Store(0)
		if ctx.Err() != nil {
			break
		}
		b.sub.lost.Add(1)
		b.o.Log.Warn("subscription lost, renewing", "error", err)
		if time.Since(began) > 10*time.Second {
			wait = 0
		}
		wait = min(max(2*wait, 20*time.Millisecond), time.Second)
		pause(ctx, wait)
	}
	<-canaries
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// listenOnce subscribes and receives until the subscription ends. Only closing the
// connection interrupts Receive; the watcher does that.
func (r *receiver) listenOnce(ctx context.Context, sub *Subscriber) error {
	b, h := r.Broker, r.h
	channels := []string{readChannel}
	for name := range h.Channels {
		channels = append(channels, name)
	}
	ps := sub.rdb.Subscribe(ctx)
	ctx, cancel := context.WithCancel(ctx)
	watcher := make(chan struct{})
	go func() { defer close(watcher); b.watch(ctx); _ = ps.Close() }()
	defer func() { cancel(); <-watcher }()

	patterns := slices.Sorted(maps.Keys(h.Patterns))
	for _, p := range append([]string{channelPattern}, patterns...) { // one by one: Redis forbids each separately
		if err := ps.PSubscribe(ctx, p); err != nil {
			return err
		}
	}
	if err := ps.Subscribe(ctx, channels...); err != nil {
		return err
	}
	all := 1 + len(patterns) + len(channels)
	for answered := 0; ; {
		v, err := ps.Receive(ctx)
		if further := answered - 1; redis.HasErrorPrefix(err, "NOPERM") && further >= 0 && further < len(patterns) {
			answered++
			b.forbidden(patterns[further], err)
			continue
		}
		if err != nil {
			return err
		}
		switch m := v.(type) {
		case *redis.Subscription:
			if answered++; answered == all {
				b.sub.subscriptions.Add(1)
				b.sub.heard.Store(int64(time.Since(b.start))) // until the canary says otherwise
				b.o.Log.Info("subscribed", "pattern", channelPattern)
				h.Subscribed()
			} else if answered > all {
				return errResubscribed
			}
		case *redis.Message:
			r.receive(m)
		}
	}
}

// forbidden logs, once, a pattern that Redis forbids.
func (b *Broker) forbidden(pattern string, err error) {
	if !b.sub.forbade.Swap(true) {
		b.o.Log.Warn("Redis forbids a subscription", "pattern", pattern, "error", err)
	}
}

// errResubscribed means that go-redis has replaced the connection. Listen starts over,
// because messages published in between are lost.
var errResubscribed = errors.New("connection renewed")

// watch returns when ctx ends, or when the canary has not been heard for twice
// Options.CanaryEvery.
func (b *Broker) watch(ctx context.Context) {
	began := time.Since(b.start)
	t := time.NewTicker(b.o.CanaryEvery / 4)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		heard := max(began, time.Duration(b.sub.heard.Load()))
		if time.Since(b.start)-heard > 2*b.o.CanaryEvery {
			return
		}
	}
}

// publishCanary publishes the canary until ctx ends.
func (b *Broker) publishCanary(ctx context.Context) {
	name := channel(canaryMark + b.o.Node)
	t := time.NewTicker(b.o.CanaryEvery)
	defer t.Stop()
	for {
		b.publishCanaryOnce(ctx, name)
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// publishCanaryOnce also asks for Redis's time, so that even the first publish of a node
// has a deadline.
func (b *Broker) publishCanaryOnce(ctx context.Context, name string) {
	ctx, cancel := b.budget(ctx)
	defer cancel()
	sent := time.Now()
	var now *redis.TimeCmd
	_, err := b.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		now = p.Time(ctx)
		p.Publish(ctx, name, "1") // a failure shows as silence
		return nil
	})
	if err == nil {
		b.learnTime(strconv.FormatInt(now.Val().UnixMilli(), 10), sent, false)
	}
}

func randomName() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
