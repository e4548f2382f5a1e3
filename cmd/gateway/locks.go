package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/broker"
	"herald/internal/janitor"
	"herald/patterns/lock"
	"herald/presence"
	"herald/sessions"
)

// lockURLs parses HERALD_LOCK_REDIS_URLS. An empty list means the main Redis.
func lockURLs(s string) ([]string, error) {
	if s == "" {
		return nil, nil
	}
	urls := strings.Split(s, ",")
	for i, u := range urls {
		if _, err := redisOptions(u, redisBudget); err != nil {
			return nil, fmt.Errorf("URL %d must be redis://[user:pass@]host:port[/db] or rediss://…", i+1)
		}
		if slices.Contains(urls[:i], u) {
			return nil, fmt.Errorf("URL %d is a duplicate: one Redis has one vote", i+1)
		}
	}
	return urls, nil
}

// lockClients returns the clients of the Redis servers that vote on locks.
func (g *gateway) lockClients() ([]redis.UniversalClient, error) {
	if len(g.cfg.lockURLs) == 0 {
		if !g.cfg.embedded { // the embedded Redis is always the only one
			g.log.Info("locks are on the main Redis alone (HERALD_LOCK_REDIS_URLS is not set)")
		}
		return []redis.UniversalClient{g.commands}, nil
	}
	var nodes []redis.UniversalClient
	for _, u := range g.cfg.lockURLs {
		o, err := redisOptions(u, redisBudget)
		if err != nil {
			return nil, err
		}
		o.PoolSize, o.MinIdleConns = 8, 0
		c := redis.NewClient(o)
		g.voters = append(g.voters, c)
		nodes = append(nodes, c)
	}
	g.log.Info("locks are on dedicated Redis servers", "nodes", len(nodes), "quorum", len(nodes)/2+1)
	return nodes, nil
}

// janitorAt parses HERALD_JANITOR: a time of day, or off.
func janitorAt(s string) (at time.Duration, on bool, err error) {
	if s == "off" {
		return 0, false, nil
	}
	t, err := time.Parse("15:04", s)
	if err != nil || len(s) != len("15:04") {
		return 0, false, fmt.Errorf("%q must be a time of day (UTC) such as 03:30, or off", s)
	}
	return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute, true, nil
}

// newJanitor returns a janitor that runs each package's chores once a day, on one node.
func (g *gateway) newJanitor() *janitor.Janitor {
	oncePerDay := func(ctx context.Context, fn func(context.Context) error) (bool, error) {
		// The token is not needed: each chore checks a key again in the step that removes it.
		return g.locks.RunOncePerPeriod(ctx, "janitor", 24*time.Hour, func(ctx context.Context, _ lock.Token) error { return fn(ctx) })
	}
	chores := append([]janitor.Chore{sweepPresence(g.presence), sweepLogs(g.broker)}, g.sessions.chores...)
	return janitor.New(g.commands, oncePerDay, chores, janitor.Options{At: g.cfg.janitorAt, Budget: g.budget, Log: g.log})
}

func sweepSessions(s *sessions.Store) janitor.Chore {
	return func(ctx context.Context, userIDs []string) (janitor.Removed, error) {
		n, err := s.Sweep(ctx, userIDs)
		return janitor.Removed{"session_handles": n}, err
	}
}

func sweepPresence(t *presence.Tracker) janitor.Chore {
	return func(ctx context.Context, userIDs []string) (janitor.Removed, error) {
		n, err := t.Sweep(ctx, userIDs)
		return janitor.Removed{"presence_notes": n}, err
	}
}

func sweepLogs(b *broker.Broker) janitor.Chore {
	return func(ctx context.Context, userIDs []string) (janitor.Removed, error) {
		n, err := b.Sweep(ctx, userIDs)
		return janitor.Removed{"logs": n.Logs, "expiring_lists": n.Expiring, "without_expiry": n.Bounded}, err
	}
}
