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

// redisBudget is the time limit of one call to Redis, limiterBudget that of a limiter,
// which then admits. Together a publish answers 503 within half a second while Redis
// hangs.
const (
	redisBudget   = 300 * time.Millisecond
	limiterBudget = 150 * time.Millisecond
)

// embeddedBudget is the time limit of a call to the embedded Redis, which shares the CPU
// with the gateway and cannot hang.
const embeddedBudget = 2 * time.Second

// redisOptions parses the URL and replaces unsafe defaults of the library: it never
// retries, obeys contexts, and limits each call by budget (redisx.Configure).
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

// dialer dials by the options that o has at the time of the call.
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

// redisClients returns a client for commands, and one for the subscription with its own
// connection, which gets the client name subscriber.
func redisClients(url string, budget, waitReplicas time.Duration, subscriber string) (commands *redis.Client, subscription *broker.Subscriber, err error) {
	o, err := redisOptions(url, budget)
	if err != nil {
		return nil, nil, err
	}
	sub := *o
	o.ReadTimeout += waitReplicas // calls that do not wait for replicas have shorter contexts
	sub.DialTimeout = time.Second
	sub.Dialer = dialer(&sub)
	// Options.ClientName would refuse to connect for a user without CLIENT SETNAME.
	sub.OnConnect = func(ctx context.Context, c *redis.Conn) error {
		_ = c.ClientSetName(ctx, subscriber).Err()
		return nil
	}
	return redis.NewClient(o), broker.NewSubscriber(&sub), nil
}

// embeddedRedis starts an in-process Redis for trials. It stores nothing on disk, and its
// TTLs follow the clock.
func embeddedRedis() (*miniredis.Miniredis, error) {
	m := miniredis.NewMiniRedis()
	m.ClockTTL(true)
	if err := m.StartAddr("127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("embedded Redis: %w", err)
	}
	return m, nil
}

// redisLog logs the library's messages at debug level. The callers log relevant errors.
type redisLog struct{ log *slog.Logger }

func (l redisLog) Printf(_ context.Context, format string, v ...any) {
	l.log.Debug("redis client", "event", fmt.Sprintf(format, v...))
}
