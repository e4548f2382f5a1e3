package chaos

import (
	"context"
	"time"

	"herald/internal/testing/faultproxy"
)

// Upper bounds of what the gateway promises while Redis is away.
const (
	refusedAnswer = 50 * time.Millisecond  // to 503 while Redis refuses connections
	silentAnswer  = 500 * time.Millisecond // to 503 while Redis says nothing
	refusedRed    = 3 * time.Second        // until a node without subscription is not ready
	silentRed     = 3500 * time.Millisecond
)

// lasting scales a duration to the size of the run.
func (r *run) lasting(short, long time.Duration) time.Duration {
	if r.size.long {
		return long
	}
	return short
}

func (r *run) times(short, long int) int {
	if r.size.long {
		return long
	}
	return short
}

// strike records a fault, injects it, and repairs it after a time.
func (r *run) strike(f event, lasting time.Duration, begin, end func()) {
	r.faults++
	f.Kind, f.Fault = faultBegan, r.faults
	r.h.add(f)
	begin()
	time.Sleep(lasting)
	end()
	r.h.add(event{Kind: faultEnded, Fault: f.Fault, Name: f.Name, Nodes: f.Nodes})
}

// blow injects a fault without duration.
func (r *run) blow(name string, nodes []int, what func()) {
	r.strike(event{Name: name, Nodes: nodes}, 0, what, func() {})
}

// someNode picks one.
func (r *run) someNode() []int { return []int{r.r.IntN(len(r.nodes))} }

// killRedis kills the Redis process and restarts it with what it had written.
func (r *run) killRedis(lasting time.Duration) {
	f := event{Name: "Redis killed", Nodes: r.all(), Answer: refusedAnswer, Red: refusedRed}
	r.strike(f, lasting,
		func() { r.redis.Kill(); r.links(r.all(), (*faultproxy.Proxy).Refuse) },
		func() { r.redis.Restart(); r.links(r.all(), (*faultproxy.Proxy).Pass) })
}

func (r *run) stopRedis(lasting time.Duration) {
	f := event{Name: "Redis stopped", Nodes: r.all(), Answer: silentAnswer, Red: silentRed}
	r.strike(f, lasting, r.redis.Stop, r.redis.Continue)
}

// blackhole drops all traffic between one node and Redis.
func (r *run) blackhole(d faultproxy.Direction, lasting time.Duration) {
	nodes := r.someNode()
	f := event{Name: "link blackholed", Nodes: nodes, Answer: silentAnswer}
	if d&faultproxy.ToClient != 0 {
		f.Red = silentRed
	}
	r.strike(f, lasting,
		func() { r.links(nodes, func(p *faultproxy.Proxy) { p.Blackhole(d) }) },
		func() { r.links(nodes, (*faultproxy.Proxy).Pass) })
}

// strand blackholes one node's connections to Redis; new connections work.
func (r *run) strand() {
	nodes := r.someNode()
	r.blow("link forgotten", nodes, func() { r.links(nodes, func(p *faultproxy.Proxy) { p.Strand() }) })
}

// cutLink resets one node's connections to Redis.
func (r *run) cutLink() {
	nodes := r.someNode()
	r.blow("link cut", nodes, func() { r.links(nodes, func(p *faultproxy.Proxy) { p.Cut() }) })
}

// loseAnswers cuts connections to Redis when it has just stored something.
func (r *run) loseAnswers(times int) {
	for range times {
		nodes := r.someNode()
		r.blow("answer lost", nodes, func() {
			r.links(nodes, func(p *faultproxy.Proxy) { p.DropReplies(1, "stored") })
		})
		r.pause(30 * time.Millisecond)
	}
	r.links(r.all(), (*faultproxy.Proxy).Pass)
}

// killSubscribers closes every node's subscription, as Redis does when a subscriber's
// output buffer is full.
func (r *run) killSubscribers() {
	r.blow("subscriptions killed", r.all(), func() {
		if err := r.admin.ClientKillByFilter(context.Background(), "TYPE", "pubsub").Err(); err != nil {
			r.t.Fatalf("CLIENT KILL: %v", err)
		}
	})
}

func (r *run) flushScripts(times int) {
	r.strike(event{Name: "scripts flushed", Nodes: r.all()}, 0, func() {
		for range times {
			if err := r.admin.ScriptFlush(context.Background()).Err(); err != nil {
				r.t.Fatalf("SCRIPT FLUSH: %v", err)
			}
			r.pause(5 * time.Millisecond)
		}
	}, func() {})
}

// tinyBuffers limits the subscribers' output buffers to tens of kilobytes while publishes
// are larger.
func (r *run) tinyBuffers(lasting time.Duration) {
	const limit = "client-output-buffer-limit"
	var was string
	r.strike(event{Name: "tiny buffers", Nodes: r.all()}, lasting,
		func() { was = r.config(limit, "pubsub 32kb 16kb 1"); r.load.heavy.Store(true) },
		func() { r.load.heavy.Store(false); r.config(limit, was) })
}

// fillMemory makes Redis refuse everything that would store something.
func (r *run) fillMemory(lasting time.Duration) {
	r.strike(event{Name: "memory full", Nodes: r.all(), Answer: refusedAnswer}, lasting,
		func() { r.config("maxmemory", "1") }, func() { r.config("maxmemory", "0") })
}

// killGateway kills one node's process and restarts it.
func (r *run) killGateway(lasting time.Duration) {
	nodes := r.someNode()
	n := r.nodes[nodes[0]]
	r.strike(event{Name: "gateway killed", Nodes: nodes}, lasting,
		func() { n.gateway.Load().Kill(); n.front.Refuse() },
		func() { n.restart(); n.front.Pass() })
}

// deploy stops one node with SIGTERM and restarts it.
func (r *run) deploy(lasting time.Duration) {
	nodes := r.someNode()
	n := r.nodes[nodes[0]]
	r.strike(event{Name: "gateway stopped", Nodes: nodes}, lasting,
		func() {
			if code := n.gateway.Load().Stop(); code != 0 {
				r.t.Errorf("a gateway that was told to stop ended with %d:\n%s", code, n.gateway.Load().Log())
			}
			n.front.Refuse()
		},
		func() { n.restart(); n.front.Pass() })
}

// pauseGateway suspends one node's process.
func (r *run) pauseGateway(lasting time.Duration) {
	nodes := r.someNode()
	g := r.nodes[nodes[0]].gateway.Load()
	r.strike(event{Name: "gateway suspended", Nodes: nodes}, lasting, g.Pause, g.Continue)
}

// cutClients resets a share of the connections to one node.
func (r *run) cutClients() {
	nodes := r.someNode()
	r.blow("clients cut", nodes, func() {
		r.nodes[nodes[0]].front.CutSome(func() bool { return r.r.IntN(3) == 0 })
	})
}

// dropDevice disconnects one device, cleanly or with RST, for a time.
func (r *run) dropDevice(away time.Duration) {
	d := r.devices[r.r.IntN(len(r.devices))]
	d.drop(time.Duration(r.r.Int64N(int64(away))), r.anyEnd())
}

// dropUser disconnects all devices of one user, which reconnect at once.
func (r *run) dropUser() {
	user := r.load.users[r.r.IntN(len(r.load.users))]
	for _, d := range r.devices {
		if d.user == user {
			d.drop(0, wire.abort)
		}
	}
}

func (r *run) pause(about time.Duration) {
	time.Sleep(about/2 + time.Duration(r.r.Int64N(int64(about))))
}
