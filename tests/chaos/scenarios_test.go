package chaos

import (
	"hash/fnv"
	"time"

	"herald/internal/testing/faultproxy"
)

// scenario is one kind of fault and the promises during it.
type scenario struct {
	name     string
	redis    []string      // further arguments of redis-server
	settings []string      // further settings of the gateways
	keyless  float64       // share of publishes without Idempotency-Key
	promise  promise       // its Ghosts are for each publisher
	crowd    bool          // fewer users, each with more devices
	slow     time.Duration // every link's delay from the start, each way
	faults   func(*run)

	// A fault that did not happen proves nothing; these show that it did.
	evidence string         // field of Redis's INFO that must be above 0
	struck   func(row) bool // whether the result shows the fault
}

// number seeds a scenario's choices by its name, so that its place in the list does not
// matter.
func (s scenario) number() uint64 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(s.name))
	return uint64(h.Sum32())
}

// someKeyless is the usual share of publishes without a key, which are attempted once.
const someKeyless = 0.15

// Evidence that a fault happened.
func refused(r row) bool  { return len(r.refusal) > 0 }
func told(r row) bool     { return r.gaps > 0 }
func ended(r row) bool    { return r.closed > 0 }
func unheard(r row) bool  { return r.ghosts > 0 }
func notReady(r row) bool { return r.red > 0 || r.green > 0 }

// Promises where nothing is lost and no stream closes.
var (
	// stays: Redis's answers may be lost.
	stays = promise{Open: true, Ghosts: anyNumber}
	// stalls: they may at most be late, once, and each publisher has no more
	// than one request under way then. Even a disk may be the reason: Redis waits
	// for it between storing and answering.
	stalls = promise{Open: true, Ghosts: 1}
)

var scenarios = []scenario{
	{
		name: "Redis kill -9, AOF", redis: durable, keyless: someKeyless, promise: stays,
		struck: refused,
		faults: func(r *run) { r.killRedis(r.lasting(time.Second, 9500*time.Millisecond)) },
	},
	{
		// Nearly all without a key, so that a refused and stored publish shows.
		name: "Redis SIGSTOP", redis: durable, keyless: 0.95,
		promise: stalls,
		struck:  refused,
		faults:  func(r *run) { r.stopRedis(r.lasting(1500*time.Millisecond, 5*time.Second)) },
	},
	{
		// No call is quick enough to learn Redis's time exactly.
		name: "Redis SIGSTOP behind a slow link", redis: durable, keyless: 0.95,
		promise: stalls,
		struck:  refused,
		slow:    20 * time.Millisecond,
		faults:  func(r *run) { r.stopRedis(r.lasting(1500*time.Millisecond, 5*time.Second)) },
	},
	{
		name: "Redis forgets", keyless: someKeyless, promise: promise{Loses: true, Open: true, Ghosts: anyNumber},
		struck: told,
		faults: func(r *run) {
			r.load.loud.Store(int64(len(r.load.users) / 2)) // for the others no later notification reveals the loss
			for range r.times(1, 3) {
				r.pause(r.lasting(400*time.Millisecond, 3*time.Second))
				r.killRedis(r.lasting(500*time.Millisecond, 2*time.Second))
			}
		},
	},
	{
		name: "Redis out of memory", redis: durable, keyless: someKeyless, promise: stalls,
		evidence: "errorstat_OOM",
		faults: func(r *run) {
			for range r.times(2, 5) {
				r.fillMemory(r.lasting(400*time.Millisecond, 2*time.Second))
				r.pause(200 * time.Millisecond)
			}
		},
	},
	{
		name: "link blackholed", redis: durable, keyless: someKeyless, promise: stays,
		struck: refused,
		faults: func(r *run) { r.blackhole(faultproxy.Both, r.lasting(4200*time.Millisecond, 11*time.Second)) },
	},
	{
		name: "link forgotten by a firewall", redis: durable, keyless: someKeyless, promise: stays,
		faults: func(r *run) {
			for range r.times(1, 4) {
				r.strand()
				r.pause(r.lasting(500*time.Millisecond, 5*time.Second))
			}
		},
	},
	{
		name: "link cut × n", redis: durable, keyless: someKeyless, promise: stays,
		faults: func(r *run) {
			for range r.times(10, 40) {
				r.cutLink()
				r.pause(r.lasting(80*time.Millisecond, 300*time.Millisecond))
			}
		},
	},
	{
		name: "Redis's answers lost", redis: durable, keyless: 0.5, promise: stays,
		struck: unheard,
		faults: func(r *run) {
			r.loseAnswers(r.times(30, 200))
			r.blackhole(faultproxy.ToClient, r.lasting(time.Second, 6*time.Second))
		},
	},
	{
		name: "CLIENT KILL TYPE pubsub × 20", redis: durable, keyless: someKeyless, promise: stalls,
		struck: notReady,
		faults: func(r *run) {
			for range 20 {
				r.killSubscribers()
				r.pause(r.lasting(80*time.Millisecond, 400*time.Millisecond))
			}
		},
	},
	{
		name: "SCRIPT FLUSH", redis: durable, keyless: someKeyless, promise: stalls,
		evidence: "errorstat_NOSCRIPT",
		faults:   func(r *run) { r.flushScripts(r.times(150, 1500)) },
	},
	{
		name: "tiny pub/sub buffers", redis: durable, keyless: someKeyless, promise: stalls,
		struck: notReady,
		faults: func(r *run) { r.tinyBuffers(r.lasting(1500*time.Millisecond, 12*time.Second)) },
	},
	{
		name: "gateway kill -9", redis: durable, keyless: someKeyless, promise: promise{Ghosts: anyNumber},
		struck: ended,
		faults: func(r *run) {
			for range r.times(2, 6) {
				r.killGateway(r.lasting(300*time.Millisecond, time.Second))
				r.pause(300 * time.Millisecond)
			}
		},
	},
	{
		name: "gateway deployed", redis: durable, keyless: someKeyless, promise: promise{Ghosts: 1},
		struck: ended,
		faults: func(r *run) {
			for range r.times(1, 6) {
				r.deploy(r.lasting(100*time.Millisecond, 500*time.Millisecond))
				r.pause(300 * time.Millisecond)
			}
		},
	},
	{
		name: "clients cut", redis: durable, keyless: someKeyless, promise: promise{Ghosts: 1},
		struck: ended,
		faults: func(r *run) {
			for range r.times(30, 300) {
				r.cutClients()
				r.dropDevice(200 * time.Millisecond)
				r.pause(40 * time.Millisecond)
			}
		},
	},
	{
		// Many devices of few users: a device that resumes meets others that are live.
		name: "clients resume over a slow link", redis: durable, keyless: someKeyless, promise: stalls, crowd: true,
		faults: func(r *run) {
			r.links(r.all(), func(p *faultproxy.Proxy) { p.Delay(0, 30*time.Millisecond) })
			for range r.times(40, 400) {
				r.dropUser()
				for range 3 {
					r.dropDevice(30 * time.Millisecond)
					r.pause(15 * time.Millisecond)
				}
			}
			r.links(r.all(), (*faultproxy.Proxy).Pass)
		},
	},
	{
		name: "log trimmed", redis: durable, settings: []string{"HERALD_LOG_LENGTH=10"}, keyless: someKeyless,
		promise: promise{Loses: true, Open: true, Ghosts: 1},
		struck:  told,
		faults: func(r *run) {
			for range r.times(15, 60) {
				r.dropDevice(2 * time.Second)
				r.pause(100 * time.Millisecond)
			}
		},
	},
	{
		name: "anything", redis: durable, keyless: someKeyless, promise: promise{Ghosts: anyNumber},
		faults: func(r *run) {
			for range r.times(6, 40) {
				r.anything()
				r.pause(200 * time.Millisecond)
			}
		},
	},
}

// anything injects random faults.
func (r *run) anything() {
	outage := time.Duration(r.r.Int64N(int64(r.lasting(700*time.Millisecond, 4*time.Second))))
	faults := []func(){
		func() { r.killRedis(outage) },
		func() { r.stopRedis(outage) },
		func() { r.blackhole(faultproxy.Direction(1+r.r.IntN(3)), outage) },
		r.strand,
		r.cutLink,
		func() { r.loseAnswers(5) },
		r.killSubscribers,
		func() { r.flushScripts(20) },
		func() { r.tinyBuffers(outage) },
		func() { r.fillMemory(outage) },
		func() { r.killGateway(outage) },
		func() { r.pauseGateway(outage) },
		r.cutClients,
		func() { r.dropDevice(time.Second) },
	}
	faults[r.r.IntN(len(faults))]()
}
