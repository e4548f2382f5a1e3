package chaos

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/internal/testing/faultproxy"
	"herald/internal/testing/gatewaytest"
	"herald/internal/testing/redistest"
)

// pingEvery is the gateways' ping interval. It bounds how soon a dead connection is
// noticed.
const pingEvery = 3 * time.Second

// With these settings Redis keeps every acknowledged write, also when its process is
// killed.
var durable = []string{"--appendonly", "yes", "--appendfsync", "always"}

// cluster is one Redis and some gateways, each with a proxy on either side:
//
//	clients → front → gateway → link → Redis
type cluster struct {
	t     testing.TB
	h     *history
	redis *redistest.Server
	admin *redis.Client // past the proxies
	nodes []*node
}

// node is one gateway. Its addresses outlive its process.
type node struct {
	c     *cluster
	index int
	front *faultproxy.Proxy
	link  *faultproxy.Proxy

	program string
	env     []string
	gateway atomic.Pointer[gatewaytest.Gateway]
}

func startCluster(t testing.TB, h *history, program string, nodes int, s scenario) *cluster {
	t.Helper()
	c := &cluster{t: t, h: h, redis: redistest.Start(t, s.redis...)}
	c.admin = c.redis.Client()
	settings := append([]string{
		"HERALD_PING=" + pingEvery.String(), "HERALD_DRAIN=1s", "HERALD_LOG_LENGTH=100000",
		"HERALD_MAX_CONNECTIONS_PER_USER=0", // reset connections may still be counted
	}, s.settings...)
	for i := range nodes {
		n := &node{c: c, index: i, program: program, link: faultproxy.Start(t, c.redis.Addr)}
		n.link.Delay(s.slow, s.slow)
		n.env = gatewaytest.Settings("redis://"+n.link.Addr, settings...)
		g := gatewaytest.Launch(t, program, n.env...)
		n.gateway.Store(g)
		n.front = faultproxy.Start(t, g.Addr())
		c.nodes = append(c.nodes, n)
	}
	for _, n := range c.nodes {
		n.gateway.Load().AwaitReady()
	}
	return c
}

// restart starts the node's gateway again. The previous process must have exited.
func (n *node) restart() {
	g := gatewaytest.Launch(n.c.t, n.program, n.env...)
	n.gateway.Store(g)
	n.front.SetTarget(g.Addr())
}

// fronts returns the addresses for clients and publishers.
func (c *cluster) fronts() (addrs []string) {
	for _, n := range c.nodes {
		addrs = append(addrs, n.front.Addr)
	}
	return addrs
}

// all returns the numbers of all nodes.
func (c *cluster) all() (indexes []int) {
	for i := range c.nodes {
		indexes = append(indexes, i)
	}
	return indexes
}

// links calls f for the Redis proxy of each of the nodes.
func (c *cluster) links(nodes []int, do func(*faultproxy.Proxy)) {
	for _, i := range nodes {
		do(c.nodes[i].link)
	}
}

// newest returns a user's newest id in Redis; 0 if there is none.
func (c *cluster) newest(user string) int64 {
	c.t.Helper()
	text, err := c.admin.HGet(context.Background(), "user:{"+user+"}:state", "last").Result()
	if err == redis.Nil {
		return 0
	}
	n, parseErr := strconv.ParseInt(text, 10, 64)
	if err != nil || parseErr != nil {
		c.t.Fatalf("newest id of %s: %q, %v", user, text, err)
	}
	return n
}

// writeLogDown adds each user's log in Redis to the history.
func (c *cluster) writeLogDown(users []string) {
	c.t.Helper()
	for _, user := range users {
		entries, err := c.admin.XRange(context.Background(), "user:{"+user+"}:log", "-", "+").Result()
		if err != nil {
			c.t.Fatalf("log of %s: %v", user, err)
		}
		for _, e := range entries {
			c.h.add(logged(user, e))
		}
	}
}

func logged(user string, entry redis.XMessage) event {
	text, _ := entry.Values["f"].(string)
	number, _ := entry.Values["n"].(string)
	e := event{Kind: logEntry, User: user, Frame: text}
	var f frame
	if err := json.Unmarshal([]byte(text), &f); err != nil {
		e.Error = err.Error()
	}
	e.ID, e.Prev, e.TS, e.Message = f.ID, f.Prev, f.TS, string(f.Message)
	e.Count, _ = strconv.ParseInt(number, 10, 64)
	return e
}

// info returns a counter of Redis's INFO; "" if it is 0.
func (c *cluster) info(field string) string {
	c.t.Helper()
	text, err := c.admin.Info(context.Background(), "everything").Result()
	if err != nil {
		c.t.Fatalf("INFO: %v", err)
	}
	for line := range strings.Lines(text) {
		if name, value, _ := strings.Cut(strings.TrimSpace(line), ":"); name == field && value != "0" {
			return value
		}
	}
	return ""
}

// config sets a parameter of Redis and returns its previous value.
func (c *cluster) config(name, value string) (was string) {
	c.t.Helper()
	old, err := c.admin.ConfigGet(context.Background(), name).Result()
	if err != nil {
		c.t.Fatalf("CONFIG GET %s: %v", name, err)
	}
	if err := c.admin.ConfigSet(context.Background(), name, value).Err(); err != nil {
		c.t.Fatalf("CONFIG SET %s %s: %v", name, value, err)
	}
	return old[name]
}

// readinessEvery is the polling interval of /health/ready, and so the precision of the
// table's readiness columns.
const readinessEvery = 20 * time.Millisecond

// watchReadiness records each change of /health/ready until ctx ends.
func (n *node) watchReadiness(ctx context.Context) {
	client := http.Client{Transport: &http.Transport{}, Timeout: time.Second}
	defer client.CloseIdleConnections()
	for last := -1; ctx.Err() == nil; rest(ctx, readinessEvery) {
		status := readiness(ctx, &client, n.gateway.Load().URL)
		if status != last && ctx.Err() == nil {
			n.c.h.add(event{Kind: readinessMoved, Node: n.index, Status: status})
			last = status
		}
	}
}

// readiness returns the status of /health/ready; 0 if there is no answer.
func readiness(ctx context.Context, client *http.Client, url string) int {
	req, err := http.NewRequestWithContext(ctx, "GET", url+"/health/ready", nil)
	if err != nil {
		return 0
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}
