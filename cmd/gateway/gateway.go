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
	"herald/limiter"
	"herald/notify"
	"herald/presence"
	"herald/server"
	"herald/sessions"
	"herald/web"
)

// gateway is the whole program, wired: newGateway listens, Run serves.
type gateway struct {
	cfg config
	log *slog.Logger

	embedded      *miniredis.Miniredis // nil with REDIS_URL
	budget        time.Duration        // the longest a call to Redis may take
	commands, sub *redis.Client
	hub           *hub.Hub
	broker        *broker.Broker
	repairer      *broker.Repairer
	presence      *presence.Tracker
	remote        *remote
	server        *server.Server
	admin         *server.Admin
	listener      net.Listener
	adminListener net.Listener // nil if off
}

func newGateway(cfg config, log *slog.Logger) (_ *gateway, err error) {
	redis.SetLogger(redisLog{log})
	g := &gateway{cfg: cfg, log: log}
	defer func() {
		if err != nil {
			g.close()
		}
	}()
	if g.listener, err = net.Listen("tcp", cfg.Listen); err != nil {
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
	g.wire()
	return g, nil
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
	g.commands, g.sub, err = redisClients(url, g.budget, g.cfg.WaitTimeout)
	return err
}

// wire ties the rooms together; none of them knows another but through here.
func (g *gateway) wire() {
	cfg, log := g.cfg, g.log
	perUser := cfg.MaxConnectionsPerUser
	if perUser == 0 {
		perUser = -1
	}
	node := randomHex(8)
	g.broker = broker.New(g.commands, broker.Options{
		LogLength: cfg.LogLength, LogRetention: cfg.LogRetention, Budget: g.budget, Log: log,
		WaitReplicas: cfg.WaitReplicas, WaitTimeout: cfg.WaitTimeout, Node: node,
	})
	g.hub = hub.New(hub.Options{
		Ping: cfg.Ping, MaxPerUser: perUser, MaxSockets: maxSockets(cfg.MaxConnections), Log: log,
		Behind:  func(userID string) { g.repairer.User(userID) },
		Expired: func(s *hub.Socket) { g.server.Expired(s) },
		Changed: func(userID string) { g.presence.Changed(userID) },
	})
	g.presence = presence.New(g.commands, node, g.hub, presence.Options{Budget: g.budget, Log: log})
	g.repairer = broker.NewRepairer(g.broker, g.hub)
	store := sessions.New(g.commands, sessions.Options{TTL: cfg.SessionTTL, MaxAge: cfg.SessionMaxAge, Budget: g.budget})
	g.remote = newRemote(g.commands, cfg, g.budget, log)
	tokens := auth.NewVerifier(cfg.jwtKeys, auth.VerifierOptions{Issuer: cfg.JWTIssuer, Audience: cfg.JWTAudience, JWKS: g.remote.jwks})
	g.server = server.New(server.Rooms{
		Hub: g.hub, Broker: g.broker, Sessions: store, Tokens: tokens,
		Auth:     auth.NewAuthenticator(cfg.apiKeys, tokens, lookup(store.Use), lookup(peekByID(store))),
		Publish:  limiter.New(g.commands, "publish", cfg.publish, limiter.Options{Log: log, Budget: limiterBudget}),
		Connect:  limiter.New(g.commands, "connect", cfg.connect, limiter.Options{Log: log, Budget: limiterBudget}),
		Presence: g.presence,
		Redis:    redisHealth(g.commands),
		Page:     web.Page, Asset: web.Asset,
		Recipients: g.remote.recipients(), Caches: g.remote.stats,
	}, server.Options{
		Cookie: cfg.SessionCookie, Origins: cfg.origins, TrustedProxies: cfg.proxies, Ping: cfg.Ping,
		Demo: cfg.demo, Version: version, Log: log,
	})
	if g.adminListener != nil {
		g.admin = server.NewAdmin(g.server)
	}
}

// lookup puts a session into auth's words.
func lookup(find func(context.Context, string) (sessions.Session, error)) auth.SessionLookup {
	return func(ctx context.Context, id string) (auth.Session, error) {
		s, err := find(ctx, id)
		if errors.Is(err, sessions.ErrNotFound) {
			return auth.Session{}, auth.ErrNoSession
		}
		return auth.Session{UserID: s.UserID, Handle: s.Handle, Expires: s.ExpiresAt}, err
	}
}

func peekByID(store *sessions.Store) func(context.Context, string) (sessions.Session, error) {
	return func(ctx context.Context, id string) (sessions.Session, error) {
		if !sessions.ValidID(id) {
			return sessions.Session{}, sessions.ErrNotFound
		}
		return store.Peek(ctx, sessions.Handle(id))
	}
}

// Run serves until ctx ends, then drains and stops. It returns nil after a
// clean stop.
func (g *gateway) Run(ctx context.Context) error {
	defer g.close()
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	var background sync.WaitGroup
	background.Go(func() { g.broker.Listen(work, g.sub, g.handlers()) })
	background.Go(func() { g.repairer.Run(work) })
	background.Go(func() { g.server.Run(work) })
	background.Go(func() { g.presence.Run(work) })
	defer background.Wait()
	defer stopWork()

	failed := make(chan error, 2)
	var serving sync.WaitGroup
	serving.Go(func() { failed <- g.server.Serve(g.listener) })
	admin := "off"
	if g.admin != nil {
		admin = g.adminListener.Addr().String()
		serving.Go(func() { failed <- g.admin.Serve(g.adminListener) })
	}
	defer serving.Wait()
	g.log.Info("listening", "addr", g.listener.Addr().String(), "admin", admin, "version", version)

	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
		err = errors.Join(errors.New("a listener ended"), err)
	}
	return errors.Join(err, g.stop())
}

// stop sends the clients away and ends the listeners.
func (g *gateway) stop() error {
	connections, _ := g.hub.Count()
	g.log.Info("draining", "connections", connections)
	g.hub.Drain(context.Background(), g.cfg.Drain)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	err := g.server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		g.log.Info("cut off requests that did not end") // no client decides whether a stop was clean
		err = nil
	}
	if g.admin != nil {
		err = errors.Join(err, g.admin.Shutdown(ctx))
	}
	return err
}

// handlers is what becomes of what the subscription brings.
func (g *gateway) handlers() broker.Handlers {
	return broker.Handlers{
		Deliver: func(userID string, m notify.Message) { g.hub.Deliver(userID, m) },
		Subscribed: func() {
			g.repairer.All()
			g.server.Recheck()
			g.remote.resubscribed()
		},
		Channels: g.remote.channels(map[string]func(string){sessions.RevokedChannel: g.revoked}),
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

// close releases what is open, in whatever state.
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
	for _, c := range []*redis.Client{g.commands, g.sub} {
		if c != nil {
			_ = c.Close()
		}
	}
	if g.embedded != nil {
		g.embedded.Close()
	}
}
