//go:build linux

package scenario

import (
	"bytes"
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"herald/loadtest/clients"
	"herald/loadtest/measure"
	"herald/loadtest/target"
	"herald/loadtest/wire"
)

// Mix combines single notifications, batches, clients that send texts, and sockets
// that drop and resume.
func Mix(ctx context.Context, st *Env, o Options) (*measure.Run, error) {
	c, err := st.open(ctx, clients.Options{Ids: true}, users(o.Users))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	run := &measure.Run{}
	return run, st.mix(ctx, run, c, o)
}

// One in batchEvery requests is a batch of batchSize notifications.
const (
	batchEvery = 20
	batchSize  = 10
)

func (st *Env) mix(ctx context.Context, run *measure.Run, c *clients.Set, o Options) error {
	caller, err := st.caller(o.Publishers)
	if err != nil {
		return err
	}
	defer caller.Close()
	m := &mixed{env: st, set: c, o: o}
	m.churn.latency = &latencies{h: measure.NewHistogram()}
	work := clients.Work{Request: m.requests(), Answer: m.answered, Schedule: measure.Schedule{PerSecond: o.Rate}, For: o.WarmUp}
	st.phase("warming up", o.WarmUp)
	before := c.Received()
	if a := caller.Do(ctx, work); a.OK == 0 {
		return fmt.Errorf("nothing could be published: %w", a.Err)
	}
	c.AwaitReceived(ctx, before+m.accepted.Load(), st.patience)

	st.phase(fmt.Sprintf("%.0f requests and %.0f reconnects a second", o.Rate, o.Churn), o.Duration)
	ob, err := st.observe(st.interval(o.Duration), withGoroutines(ctx, st.receiver(), counts(c, caller)))
	if err != nil {
		return err
	}
	m.accepted.Store(0)
	snap := st.snapshot(c)
	snap.patience *= 2 // resumes take longer
	recorded := c.Record()
	stop := m.startChurn(ctx)
	work.For = o.Duration
	a := caller.Do(ctx, work)
	stop()
	got := snap.await(ctx, m.accepted.Load())
	addResponses(run, a, recorded())
	run.Latency(Connecting, m.churn.latency.take())
	err = ob.end(run, perMessage, got)
	snap.close(run, m.accepted.Load())
	snap.order(run)
	run.Add("reconnects", measure.Plain, float64(m.churn.opened))
	run.Add("reconnects that failed", measure.Plain, float64(m.churn.failed))
	if m.churn.failed > 0 {
		run.Note("%d reconnects failed, the first: %v", m.churn.failed, m.churn.err)
	}
	return err
}

// withGoroutines adds the number of goroutines, read at most once per second because
// reading costs the server CPU.
func withGoroutines(ctx context.Context, s *target.Server, counts func() measure.Counts) func() measure.Counts {
	var asked time.Time
	var goroutines int64
	return func() measure.Counts {
		if now := time.Now(); now.Sub(asked) >= time.Second {
			asked, goroutines = now, s.Goroutines(ctx)
		}
		n := counts()
		n.Goroutines = goroutines
		return n
	}
}

// mixed is a mix in progress.
type mixed struct {
	env      *Env
	set      *clients.Set
	o        Options
	accepted atomic.Int64 // notifications accepted by the server
	batch    int          // notifications per batch; 0: the server has no batches

	churn struct { // owned by the goroutine that startChurn starts, until stop returns
		opened, failed int
		err            error
		latency        *latencies
	}
}

// requests returns single notifications, and batches if the server supports them.
func (m *mixed) requests() func([]byte, int, time.Duration) []byte {
	server := m.env.Server
	anyone := m.env.anyOf(m.o.Users)
	single := m.env.publication(m.o.Message, anyone)
	if server.Batch(nil, nil, nil) != nil {
		m.batch = min(batchSize, m.o.Users)
	}
	return func(dst []byte, i int, due time.Duration) []byte {
		if !m.isBatch(i) {
			return single(dst, i, due)
		}
		first, list := anyone(), make([]int, m.batch)
		for k := range list {
			list[k] = (first + k) % m.o.Users
		}
		b := server.Batch(nil, list, wire.Message(m.o.Message))
		return wire.NewTemplate(b).Append(dst, 0, wire.Stamp{Due: due, Number: uint32(i)})
	}
}

func (m *mixed) isBatch(i int) bool { return m.batch > 0 && i%batchEvery == 0 }

func (m *mixed) answered(i int, r wire.Response) {
	switch {
	case r.Status/100 != 2:
	case m.isBatch(i):
		m.accepted.Add(int64(m.batch - bytes.Count(r.Body, []byte(`"ok":false`))))
	default:
		m.accepted.Add(1)
	}
}

// startChurn drops and reconnects the sockets that are due, ten times per second, so
// that a slow server does not get fewer. As many sockets send a text each time.
// stop waits for the last reconnects.
func (m *mixed) startChurn(ctx context.Context) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		t := time.NewTicker(100 * time.Millisecond)
		defer t.Stop()
		began, dropped := time.Now(), 0
		for {
			select {
			case <-quit:
				return
			case <-ctx.Done():
				return
			case <-t.C:
			}
			due := int(m.o.Churn * time.Since(began).Seconds())
			m.reconnect(ctx, due-dropped)
			dropped = due
		}
	}()
	return func() { close(quit); <-done }
}

// reconnect drops n sockets and reconnects them once, without retries.
func (m *mixed) reconnect(ctx context.Context, n int) {
	if n == 0 {
		return
	}
	if text := m.env.receiver().SendText(); text != nil {
		m.set.Some(n, func(s *clients.Socket) { s.SendText(text) })
	}
	since := map[int]int64{}
	var list []int
	m.set.Some(n, func(s *clients.Socket) {
		since[s.User] = int64(s.Last)
		list = append(list, s.User)
		s.Drop()
	})
	a := m.set.Connect(ctx, clients.ConnectPlan{Users: list, Since: func(user int) int64 { return since[user] }, Timeout: 10 * time.Second})
	m.churn.opened += a.Opened
	m.churn.failed += a.Failed
	if m.churn.err == nil {
		m.churn.err = a.Err
	}
	m.churn.latency.merge(a.Latency)
}
