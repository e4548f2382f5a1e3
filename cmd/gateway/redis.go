package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"herald/broker"
	"herald/internal/redisx"
	"herald/internal/transport"
)

// redisBudget is the longest that one call to Redis may take, limiterBudget the
// longest that a limiter waits before it lets pass: together a publish answers
// 503 within half a second while Redis hangs.
const (
	redisBudget   = 300 * time.Millisecond
	limiterBudget = 150 * time.Millisecond
)

// embeddedBudget is for the embedded Redis: it shares the machine, and cannot hang.
const embeddedBudget = 2 * time.Second

// redisOptions reads the URL and sets what the library's defaults get wrong:
// nothing is ever retried (a retry after a lost answer writes twice), contexts
// count, and nothing waits longer than its budget.
func redisOptions(url string, budget time.Duration) (*redis.Options, error) {
	o, err := redis.ParseURL(url)
	if err != nil {
		return nil, fmt.Errorf("REDIS_URL: must be redis://[user:pass@]host:port[/db] or rediss://…: %w", hideURL(err, url))
	}
	redisx.Configure(o, budget)
	o.PoolSize = 64
	o.MinIdleConns = 4
	o.Dialer = dialer(o)
	return o, nil
}

// dialer makes connections by o, as it is when one is made.
func dialer(o *redis.Options) func(ctx context.Context, network, addr string) (net.Conn, error) {
	dial := redis.NewDialer(o)
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		if tcp, ok := c.(*net.TCPConn); ok && err == nil {
			return transport.NewPoolConn(tcp)
		}
		return c, err
	}
}

// hideURL keeps the password out of the error.
func hideURL(err error, url string) error {
	if strings.Contains(err.Error(), url) || strings.Contains(url, "@") {
		return fmt.Errorf("it cannot be parsed")
	}
	return err
}

// redisClients returns one client for commands and one for the subscription,
// which has a connection to itself, of the given client name.
func redisClients(url string, budget, waitReplicas time.Duration, subscriber string) (commands *redis.Client, subscription *broker.Subscriber, err error) {
	o, err := redisOptions(url, budget)
	if err != nil {
		return nil, nil, err
	}
	sub := *o
	o.ReadTimeout += waitReplicas // contexts are shorter where nothing waits for replicas
	sub.DialTimeout = time.Second
	sub.Dialer = dialer(&sub)
	// Not as Options.ClientName: a user who may not CLIENT SETNAME could not connect.
	sub.OnConnect = func(ctx context.Context, c *redis.Conn) error {
		_ = c.ClientSetName(ctx, subscriber).Err()
		return nil
	}
	return redis.NewClient(o), broker.NewSubscriber(&sub), nil
}

// embeddedRedis starts an in-process Redis for trying things out. Its TTLs
// follow the clock; nothing of it is written anywhere.
func embeddedRedis() (*miniredis.Miniredis, error) {
	m := miniredis.NewMiniRedis()
	m.ClockTTL(true)
	if err := m.StartAddr("127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("embedded Redis: %w", err)
	}
	return m, nil
}

// redisLog passes the library's own messages on at debug level: what matters of
// them is logged where it happens.
type redisLog struct{ log *slog.Logger }

func (l redisLog) Printf(_ context.Context, format string, v ...any) {
	l.log.Debug("redis client", "event", fmt.Sprintf(format, v...))
}
