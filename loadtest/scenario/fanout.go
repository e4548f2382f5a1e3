//go:build linux

package scenario

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"herald/loadtest/clients"
	"herald/loadtest/loop"
	"herald/loadtest/measure"
	"herald/loadtest/target"
	"herald/loadtest/wire"
)

// Fanout publishes to one user with many sockets: at a fixed rate, or the next
// message as soon as every socket has one of those in flight.
func Fanout(ctx context.Context, st *Env, o Options) (*measure.Run, error) {
	run := &measure.Run{}
	b := newBroadcasts(o.Connections)
	c, err := st.open(ctx, clients.Options{Delivered: b.delivered}, make([]int, o.Connections))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return run, st.fanout(ctx, run, c, b, o)
}

// fanout measures Fanout with open sockets.
func (st *Env) fanout(ctx context.Context, run *measure.Run, c *clients.Set, b *broadcasts, o Options) error {
	defer st.yieldToServer(o)()
	caller, err := st.caller(o.InFlight)
	if err != nil {
		return err
	}
	defer caller.Close()
	request := st.publication(o.Message, func() int { return 0 })
	var numbers [maxSlots]int64 // of the latest requests; owned by the sender's thread
	work := clients.Work{
		Schedule: measure.Schedule{PerSecond: o.Rate},
		For:      o.WarmUp,
		Ready:    func() bool { return b.admits(int64(o.InFlight)) },
		Request: func(dst []byte, i int, due time.Duration) []byte {
			n := b.begin(due)
			numbers[i%maxSlots] = n
			return request(dst, int(n), due)
		},
		Failed: func(i int) { b.abandon(numbers[i%maxSlots]) },
	}
	what := fmt.Sprintf("broadcasting, %d in flight", o.InFlight)
	st.phase(what+", warming up", o.WarmUp)
	if warm := caller.Do(ctx, work); warm.OK == 0 {
		return fmt.Errorf("broadcast: %w", warm.Err)
	}
	b.await(ctx, st.patience)

	st.phase(what, o.Duration)
	whole := b.record()
	work.For = o.Duration
	err = st.deliver(ctx, run, st.snapshot(c), caller, work, b.sockets)
	run.Latency(BroadcastTook, whole())
	return err
}

// maxSlots exceeds the number of broadcasts in flight.
const maxSlots = 64

// broadcasts counts the sockets that each recent broadcast has reached.
type broadcasts struct {
	sockets      int64
	begun, ended atomic.Int64
	latest       atomic.Int64 // loop.Now of the latest start or end
	slots        [maxSlots]broadcast
	took         atomic.Pointer[latencies]
}

type broadcast struct {
	number  atomic.Int64 // -1: ended
	reached atomic.Int64
	due     atomic.Int64
}

func newBroadcasts(sockets int) *broadcasts {
	b := &broadcasts{sockets: int64(sockets)}
	for i := range b.slots {
		b.slots[i].number.Store(-1)
	}
	b.record()
	return b
}

func (b *broadcasts) open() int64 { return b.begun.Load() - b.ended.Load() }

// abandonAfter is the time without progress after which broadcasts in flight are
// abandoned: a closed socket is never reached.
const abandonAfter = 2 * time.Second

// admits reports whether another broadcast may start.
func (b *broadcasts) admits(most int64) bool {
	if b.open() < most {
		return true
	}
	if loop.Now()-time.Duration(b.latest.Load()) > abandonAfter {
		for i := range b.slots {
			b.abandon(b.slots[i].number.Load())
		}
	}
	return false
}

// begin starts a broadcast and returns its number.
func (b *broadcasts) begin(due time.Duration) int64 {
	n := b.begun.Add(1) - 1
	f := &b.slots[n%maxSlots]
	f.reached.Store(0)
	f.due.Store(int64(due))
	f.number.Store(n)
	b.latest.Store(int64(due))
	return n
}

// abandon ends a broadcast that will not reach all sockets.
func (b *broadcasts) abandon(n int64) {
	if n >= 0 && b.slots[n%maxSlots].number.CompareAndSwap(n, -1) {
		b.ended.Add(1)
	}
}

func (b *broadcasts) delivered(_ *clients.Socket, s wire.Stamp) {
	n := int64(s.Number)
	f := &b.slots[n%maxSlots]
	if f.number.Load() != n || f.reached.Add(1) != b.sockets || !f.number.CompareAndSwap(n, -1) {
		return
	}
	now := loop.Now()
	b.took.Load().add(now - time.Duration(f.due.Load()))
	b.latest.Store(int64(now))
	b.ended.Add(1)
}

// await waits until all broadcasts have ended.
func (b *broadcasts) await(ctx context.Context, patience time.Duration) bool {
	for until := time.Now().Add(patience); b.open() > 0; {
		if time.Now().After(until) || target.Sleep(ctx, 2*time.Millisecond) != nil {
			return false
		}
	}
	return true
}

// record starts to record durations; the function it returns stops and returns them.
func (b *broadcasts) record() func() *measure.Histogram {
	l := &latencies{h: measure.NewHistogram()}
	b.took.Store(l)
	return l.take
}
