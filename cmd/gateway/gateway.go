package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"herald/auth"
	"herald/broker"
	"herald/hub"
	"herald/internal/janitor"
	"herald/internal/redisinfo"
	"herald/internal/redisx"
	"herald/internal/schedule"
	"herald/limiter"
	"herald/patterns/lock"
	"herald/presence"
	"herald/server"
	"herald/server/admin"
	"herald/sessions"
)

// gateway is the wired program. newGateway opens the listeners, Run serves.
type gateway struct {
	cfg  config
	log  *slog.Logger
	node string // unique name of this node, random

	embedded      *miniredis.Miniredis // nil with REDIS_URL
	budget        time.Duration        // time limit of one call to Redis
	commands      *redis.Client
	shared        *redisx.Client // commands, with calls of concurrent connections sent together
	sub           *broker.Subscriber
	voters        []*redis.Client // Redis servers of locks; empty if the main Redis is the only one
	locks         *lock.Locker
	janitor       *janitor.Janitor // nil if off
	hub           *hub.Hub
	broker        *broker.Broker
	repairer      *broker.Repairer
	presence      *presence.Tracker
	schedule      *schedule.Scheduler
	sampler       *redisinfo.Sampler
	sessions      sessionStore
	remote        *remote
	server        *server.Server
	admin         *admin.Admin
	listener      net.Listener
	adminListener net.Listener // nil if off
}

func newGateway(cfg config, log *slog.Logger) (_ *gateway, err error) {
	redis.SetLogger(redisLog{log})
	g := &gateway{cfg: cfg, log: log, node: randomHex(8)}
	defer func() {
		if err != nil {
			g.close()
		}
	}()
	public := net.ListenConfig{KeepAlive: -1} // package transport sets keepalive
	if g.listener, err = public.Listen(context.Background(), "tcp", cfg.Listen); err != nil {
		return nil, fmt.Errorf("HERALD_LISTEN: %w", err)
	}
	if cfg.AdminListen != "off" {
		if g.adminListener, err = net.Listen("tcp", cfg.AdminListen); err != nil {
			return nil, fmt.Errorf("HERALD_ADMIN_LISTEN: %w", err)
		}
	}
	if err := g.connectRedis(); err != nil {
		return nil, err
	}
	if cfg.Strict {
		if err := g.refuseEviction(); err != nil {
			return nil, fmt.Errorf("HERALD_STRICT: %w", err)
		}
	}
	return g, g.wire()
}

func (g *gateway) connectRedis() (err error) {
	url := g.cfg.RedisURL
	g.budget = redisBudget
	if g.cfg.embedded {
		g.budget = embeddedBudget
		if g.embedded, err = embeddedRedis(); err != nil {
			return err
		}
		url = "redis://" + g.embedded.Addr()
	}
	g.commands, g.sub, err = redisClients(url, g.budget, g.cfg.WaitTimeout, g.subscriber())
	if err != nil {
		return err
	}
	g.shared = redisx.New(g.commands)
	g.remote = newRemote(g.commands, g.cfg, g.budget, g.log)
	g.sampler = redisinfo.NewSampler(g.commands, redisinfo.Options{
		Budget: g.budget, Subscriber: g.subscriber(), WaitReplicas: g.cfg.WaitReplicas, Caches: g.remote.lookups(), Log: g.log,
	})
	return nil
}

// subscriber is the client name of the subscription's connection in CLIENT LIST.
func (g *gateway) subscriber() string { return "herald-sub-" + g.node }

// refuseEviction fails if Redis evicts stored data. If Redis is unreachable, the gateway
// starts anyway, and the sampler reports the policy later.
func (g *gateway) refuseEviction() error {
	r, err := redisinfo.Take(context.Background(), g.commands, redisinfo.TakeOptions{Budget: g.budget})
	if err != nil {
		return nil
	}
	for _, f := range redisinfo.Examine(r, redisinfo.Circumstances{}) {
		if f.Name == redisinfo.CheckPolicy && f.Level == redisinfo.Fail {
			return fmt.Errorf("%s; %s", f.Text, f.Advice)
		}
	}
	return nil
}

// wire connects the packages. They do not import each other.
func (g *gateway) wire() (err error) {
	cfg, log := g.cfg, g.log
	nodes, err := g.lockClients()
	if err != nil {
		return err
	}
	// A job retries the extension of its lock during the last ten seconds of the lease.
	g.locks = lock.New(nodes, lock.Options{Budget: g.budget, ExtendWithin: 10 * time.Second, Log: log})
	perUser := cfg.MaxConnectionsPerUser
	if perUser == 0 {
		perUser = -1
	}
	publishes := limiter.New(g.commands, "publish", cfg.publish, limiter.Options{Log: log, Budget: limiterBudget, Merge: true})
	g.broker = broker.New(g.commands, broker.Options{
		Admit:     publishes.Lua(),
		States:    g.shared,
		LogLength: cfg.LogLength, LogRetention: cfg.LogRetention, Budget: g.budget, Log: log,
		WaitReplicas: cfg.WaitReplicas, WaitTimeout: cfg.WaitTimeout, Node: g.node,
	})
	g.hub = hub.New(hub.Options{
		Ping: cfg.Ping, MaxPerUser: perUser, MaxSockets: maxSockets(cfg.MaxConnections), Log: log,
		OnGap:    func(userID string) { g.repairer.User(userID) },
		OnExpiry: func(s *hub.Socket) { g.server.Streams.Expired(s) },
		OnChange: func(userID string) { g.presence.Changed(userID) },
	})
	g.presence = presence.New(g.commands, g.node, g.hub, presence.Options{Budget: g.budget, Log: log})
	g.repairer = broker.NewRepairer(g.broker, g.hub)
	publisher, scheduler := g.newPublisher(publishes)
	g.schedule = scheduler
	g.sessions = g.newSessions()
	if cfg.janitor {
		g.janitor = g.newJanitor()
	}
	tokens := auth.NewVerifier(cfg.jwtKeys, auth.VerifierOptions{Issuer: cfg.JWTIssuer, Audience: cfg.JWTAudience, JWKS: g.remote.jwks})
	connects := limiter.New(g.shared, "connect", cfg.connect, limiter.Options{Log: log, Budget: limiterBudget})
	g.server, err = server.New(server.Deps{
		Hub: g.hub, Broker: g.broker, Sessions: g.sessions.store, Tokens: tokens,
		Auth:     auth.NewAuthenticator(cfg.apiKeys, tokens, g.sessions.use, g.sessions.peek),
		Connect:  connects,
		Presence: g.presence, Schedule: g.schedule, Publisher: publisher, Redis: g.sampler,
	}, server.Options{
		Cookie: cfg.sessions.cookie, SessionCheck: cfg.sessions.check, Origins: cfg.origins, TrustedProxies: cfg.proxies, Ping: cfg.Ping,
		Demo: cfg.demo, Plain: cfg.EventLoop == "off", Version: programVersion(), Log: log,
	})
	if err == nil && g.adminListener != nil {
		g.admin = admin.New(admin.Deps{
			Server: g.server, Hub: g.hub, Broker: g.broker, Publish: publishes, Connect: connects, Schedule: g.schedule,
			Redis: g.sampler, Locks: g.locks, Janitor: g.janitor, Recipients: g.remote.directory, Caches: g.remote.stats,
		}, admin.Options{Listen: cfg.AdminListen, Version: programVersion(), Log: log})
	}
	return err
}

// Run serves until ctx ends, then drains and stops. It returns nil after a
// clean stop.
func (g *gateway) Run(ctx context.Context) error {
	defer g.close()
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	var background sync.WaitGroup
	background.Go(func() { g.broker.Listen(work, g.sub, g.handlers()) })
	background.Go(func() { g.repairer.Run(work) })
	background.Go(func() { g.server.Streams.Run(work) })
	background.Go(func() { g.presence.Run(work) })
	background.Go(func() { g.schedule.Run(work) })
	background.Go(func() { g.sampler.Run(work) })
	if g.janitor != nil {
		background.Go(func() { g.janitor.Run(work) })
	}
	background.Go(func() { g.sessions.report(work) })
	defer background.Wait()
	defer stopWork()

	failed := make(chan error, 2)
	var serving sync.WaitGroup
	serving.Go(func() { failed <- g.server.Serve(g.listener) })
	adminAddr := "off"
	if g.admin != nil {
		adminAddr = g.adminListener.Addr().String()
		serving.Go(func() { failed <- g.admin.Serve(g.adminListener) })
	}
	defer serving.Wait()
	g.log.Info("listening", "addr", g.listener.Addr().String(), "admin", adminAddr, "version", programVersion())

	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
		err = errors.Join(errors.New("a listener ended"), err)
	}
	return errors.Join(err, g.stop())
}

// stop drains the connections and shuts both servers down.
func (g *gateway) stop() error {
	connections, _ := g.hub.Count()
	g.log.Info("draining", "connections", connections)
	g.hub.Drain(context.Background(), g.cfg.Drain)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	err := g.server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		g.log.Info("cut off requests that did not end") // a slow client does not make the stop unclean
		err = nil
	}
	if g.admin != nil {
		err = errors.Join(err, g.admin.Shutdown(ctx))
	}
	return err
}

// handlers connect the subscription to the hub, the repairer, the sessions and the caches.
func (g *gateway) handlers() broker.Handlers {
	cork := g.hub.NewCork()
	return broker.Handlers{
		Deliver: cork.Deliver, Idle: cork.Uncork,
		Subscribed: func() {
			g.repairer.All()
			g.server.Streams.Recheck()
			g.remote.resubscribed()
		},
		Channels: g.remote.channels(map[string]func(string){sessions.RevokedChannel: g.revoked}),
		Patterns: g.sessions.events,
	}
}

func (g *gateway) revoked(payload string) {
	r, err := sessions.ParseRevocation(payload)
	if err != nil {
		g.log.Warn("dropped a revocation", "error", err)
		return
	}
	g.hub.Revoke(r.UserID, r.Handles)
}

// close releases everything that is open. It works on a partly built gateway.
func (g *gateway) close() {
	for _, l := range []net.Listener{g.listener, g.adminListener} {
		if l != nil {
			_ = l.Close()
		}
	}
	if g.hub != nil {
		g.hub.Close()
	}
	if g.remote != nil {
		g.remote.close()
	}
	for _, c := range append(g.voters, g.commands) {
		if c != nil {
			_ = c.Close()
		}
	}
	if g.sub != nil {
		_ = g.sub.Close()
	}
	if g.embedded != nil {
		g.embedded.Close()
	}
}
