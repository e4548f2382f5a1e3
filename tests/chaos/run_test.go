package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// size is the amount of load and faults in a run.
type size struct {
	nodes      int
	users      int
	devices    int // of each user
	publishers int
	pace       time.Duration // between the publishes of one publisher, on average
	after      time.Duration // how long publishing continues after the faults
	patience   time.Duration // timeout for what must happen
	long       bool
}

var (
	shortSize = size{nodes: 2, users: 6, devices: 3, publishers: 4, pace: 30 * time.Millisecond, after: 500 * time.Millisecond, patience: 20 * time.Second}
	longSize  = size{nodes: 3, users: 24, devices: 4, publishers: 8, pace: 15 * time.Millisecond, after: 3 * time.Second, patience: 30 * time.Second, long: true}
)

// run is one running scenario. Only the test's goroutine calls its methods.
type run struct {
	*cluster
	scenario scenario
	size     size
	r        *rand.Rand
	load     *load
	devices  []*device
	faults   int // so far
}

// perform runs a scenario from an empty Redis to the last resume and returns the history.
func perform(t testing.TB, s scenario, program string, z size) recording {
	t.Helper()
	h := newHistory()
	if s.crowd {
		z.users, z.devices = max(2, z.users/8), z.devices*3
	}
	number := s.number()
	r := &run{scenario: s, size: z, r: chance(number, 0)}
	r.cluster = startCluster(t, h, program, z.nodes, s)
	watching, stopWatching := context.WithCancel(context.Background())
	var watchers sync.WaitGroup
	for _, n := range r.nodes {
		watchers.Go(func() { n.watchReadiness(watching) })
	}
	defer watchers.Wait()
	defer stopWatching()
	r.plan(number)
	for _, d := range r.devices {
		d.start()
	}
	defer r.stopDevices()
	if r.publishDuring(number, r.strikeAll) {
		r.settle()
		r.resumeAll()
	}
	r.writeLogDown(r.load.users)
	if f := s.evidence; f != "" && r.info(f) == "" {
		t.Errorf("%s: Redis counts no %s: this was not the disaster it should have been", s.name, f)
	}
	r.stopDevices()
	stopWatching()
	watchers.Wait()
	p := s.promise
	if p.Ghosts != anyNumber {
		p.Ghosts *= z.publishers
	}
	return recording{Scenario: s.name, Seed: seed, Promise: p, events: h.all()}
}

// plan creates the users and their devices, spread over the nodes. Every third device uses
// SSE.
func (r *run) plan(number uint64) {
	r.load = &load{pace: r.size.pace, keyless: r.scenario.keyless}
	for u := range r.size.users {
		user := fmt.Sprintf("user-%02d", u)
		r.load.users = append(r.load.users, user)
		for i := range r.size.devices {
			actor := uint64(1000 + u*r.size.devices + i)
			d := newDevice(fmt.Sprintf("%s/%d", user, i), user, r.h, r.fronts(), (u+i)%r.size.nodes, chance(number, actor))
			d.sse = i%3 == 2
			r.devices = append(r.devices, d)
		}
	}
	r.load.loud.Store(int64(r.size.users))
}

func (r *run) stopDevices() {
	for _, d := range r.devices {
		d.stop()
	}
}

// publishDuring runs publishers while faults runs, and for some time before and after. It
// reports whether the run got that far.
func (r *run) publishDuring(number uint64, faults func()) bool {
	stop, stopPublishers := context.WithCancel(context.Background())
	giveUp, abandon := context.WithCancel(context.Background())
	defer abandon()
	var publishers sync.WaitGroup
	for i := range r.size.publishers {
		p := newPublisher(fmt.Sprintf("%d", i), r.fronts(), r.load, r.h, chance(number, uint64(1+i)))
		publishers.Go(func() { p.run(stop, giveUp) })
	}
	defer publishers.Wait()
	defer stopPublishers()
	if !r.await("everybody has heard something", func(d *device) bool { return d.standing().heard > 0 }) {
		r.t.Errorf("%s: not even before the faults has everybody heard something", r.scenario.name)
		return false
	}
	faults()
	time.Sleep(r.size.after)
	stopPublishers()
	time.AfterFunc(r.size.patience, abandon)
	publishers.Wait()
	return true
}

// strikeAll injects a fault and waits until every recipient has received a notification
// since. That time is the recovery.
func (r *run) strikeAll() {
	r.scenario.faults(r)
	before := map[*device]int{}
	for _, d := range r.devices {
		before[d] = d.standing().heard
	}
	loud := map[string]bool{}
	for _, user := range r.load.users[:r.load.loud.Load()] {
		loud[user] = true
	}
	r.await("everybody has heard something since the fault", func(d *device) bool {
		return !loud[d.user] || d.standing().heard > before[d]
	})
}

// settle waits until every open stream is up to date, at most for patience. The checker
// decides whether it is.
func (r *run) settle() {
	newest := r.newestOfAll()
	r.await("everybody is up to date", func(d *device) bool { return d.standing().upToDate(newest[d.user]) })
	r.awaitReadiness()
	r.h.add(event{Kind: settled})
}

// resumeAll makes every device reconnect once more.
func (r *run) resumeAll() {
	newest := r.newestOfAll()
	before := map[*device]int{}
	for _, d := range r.devices {
		before[d] = d.standing().stream
		d.drop(0, r.anyEnd())
	}
	r.await("everybody has resumed", func(d *device) bool {
		at := d.standing()
		return at.stream != before[d] && at.upToDate(newest[d.user])
	})
	r.h.add(event{Kind: resumed})
}

// anyEnd returns one of the ways in which a client disconnects.
func (r *run) anyEnd() func(wire) {
	if r.r.IntN(2) == 0 {
		return wire.leave
	}
	return wire.abort
}

func (r *run) newestOfAll() map[string]int64 {
	newest := map[string]int64{}
	for _, user := range r.load.users {
		newest[user] = r.newest(user)
	}
	return newest
}

// await waits until ok holds for all devices, at most for patience.
func (r *run) await(what string, ok func(*device) bool) bool {
	deadline := time.Now().Add(r.size.patience)
	for _, d := range r.devices {
		for !ok(d) {
			if time.Now().After(deadline) {
				r.size.patience /= 3 // the run has failed already: later waits may be shorter
				r.t.Logf("%s: waited in vain until %s; %s stands at %+v", r.scenario.name, what, d.name, d.standing())
				return false
			}
			time.Sleep(2 * time.Millisecond)
		}
	}
	return true
}

// awaitReadiness waits until the nodes are ready, at most for patience.
func (r *run) awaitReadiness() {
	deadline := time.Now().Add(r.size.patience)
	for _, n := range r.nodes {
		for n.gateway.Load().Ready() != 200 && time.Now().Before(deadline) {
			time.Sleep(readinessEvery)
		}
	}
	time.Sleep(2 * readinessEvery) // lets the watchers see it too
}
