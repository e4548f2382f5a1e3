//go:build linux

package scenario

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"herald/loadtest/crowd"
	"herald/loadtest/loop"
	"herald/loadtest/measure"
	"herald/loadtest/wire"
)

// Fanout publishes to one user with many sockets: on a schedule, or the next one
// as soon as every socket has one of those in flight.
func Fanout(ctx context.Context, st *Stage, o Options) (*measure.Run, error) {
	run := &measure.Run{}
	b := newBroadcasts(o.Connections)
	c, err := st.open(ctx, crowd.Options{Delivered: b.delivered}, make([]int, o.Connections))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return run, st.fanout(ctx, run, c, b, o)
}

// fanout is Fanout with a crowd that is there.
func (st *Stage) fanout(ctx context.Context, run *measure.Run, c *crowd.Crowd, b *broadcasts, o Options) error {
	defer st.standBack(o)()
	caller, err := st.caller(o.InFlight)
	if err != nil {
		return err
	}
	defer caller.Close()
	request := st.publication(o.Message, func() int { return 0 })
	var numbers [flights]int64 // of the latest requests; on the sender's thread
	work := crowd.Work{
		Pace:  measure.Pace{PerSecond: o.Rate},
		For:   o.WarmUp,
		Ready: func() bool { return b.room(int64(o.InFlight)) },
		Request: func(dst []byte, i int, due time.Duration) []byte {
			n := b.begin(due)
			numbers[i%flights] = n
			return request(dst, int(n), due)
		},
		Failed: func(i int) { b.giveUp(numbers[i%flights]) },
	}
	what := fmt.Sprintf("broadcasting, %d in flight", o.InFlight)
	st.tell(what+", warming up", o.WarmUp)
	if warm := caller.Do(ctx, work); warm.OK == 0 {
		return fmt.Errorf("broadcast: %w", warm.Err)
	}
	b.await(ctx, time.Second)

	st.tell(what, o.Duration)
	acc := newAccount(c)
	ob, err := st.observe(st.interval(o.Duration), counts(c, caller))
	if err != nil {
		return err
	}
	recorded := c.Record()
	whole := b.record()
	work.For = o.Duration
	a := caller.Do(ctx, work)
	b.await(ctx, time.Second)
	acc.await(ctx, int64(a.OK)*b.sockets, time.Second)
	answered(run, a, recorded())
	run.Latency(BroadcastTook, whole())
	err = ob.end(run, perMessage, acc.got())
	acc.close(run, int64(a.OK)*b.sockets)
	return err
}

// flights is more than may be in flight.
const flights = 64

// broadcasts counts the sockets that each of the latest broadcasts has reached.
type broadcasts struct {
	sockets      int64
	begun, ended atomic.Int64
	latest       atomic.Int64 // loop.Now of the latest beginning or end
	flying       [flights]flight
	took         atomic.Pointer[latencies]
}

type flight struct {
	number  atomic.Int64 // -1: it has ended
	reached atomic.Int64
	due     atomic.Int64
}

func newBroadcasts(sockets int) *broadcasts {
	b := &broadcasts{sockets: int64(sockets)}
	for i := range b.flying {
		b.flying[i].number.Store(-1)
	}
	b.record()
	return b
}

func (b *broadcasts) open() int64 { return b.begun.Load() - b.ended.Load() }

// givingUp is how long nothing may happen before what flies is given up: a
// socket that was closed will never be reached.
const givingUp = 2 * time.Second

// room reports whether one more may fly.
func (b *broadcasts) room(most int64) bool {
	if b.open() < most {
		return true
	}
	if loop.Now()-time.Duration(b.latest.Load()) > givingUp {
		for i := range b.flying {
			b.giveUp(b.flying[i].number.Load())
		}
	}
	return false
}

// begin returns the number of the next one.
func (b *broadcasts) begin(due time.Duration) int64 {
	n := b.begun.Add(1) - 1
	f := &b.flying[n%flights]
	f.reached.Store(0)
	f.due.Store(int64(due))
	f.number.Store(n)
	b.latest.Store(int64(due))
	return n
}

// giveUp ends one that is not going to arrive everywhere.
func (b *broadcasts) giveUp(n int64) {
	if n >= 0 && b.flying[n%flights].number.CompareAndSwap(n, -1) {
		b.ended.Add(1)
	}
}

func (b *broadcasts) delivered(_ *crowd.Socket, s wire.Stamp) {
	n := int64(s.Number)
	f := &b.flying[n%flights]
	if f.number.Load() != n || f.reached.Add(1) != b.sockets || !f.number.CompareAndSwap(n, -1) {
		return
	}
	now := loop.Now()
	b.took.Load().add(now - time.Duration(f.due.Load()))
	b.latest.Store(int64(now))
	b.ended.Add(1)
}

// await waits until all have arrived everywhere.
func (b *broadcasts) await(ctx context.Context, patience time.Duration) bool {
	for until := time.Now().Add(patience); b.open() > 0; {
		if time.Now().After(until) || pause(ctx, 2*time.Millisecond) != nil {
			return false
		}
	}
	return true
}

// record begins to record how long they take; what it returns ends that.
func (b *broadcasts) record() func() *measure.Histogram {
	l := &latencies{h: measure.NewHistogram()}
	b.took.Store(l)
	return l.take
}
