//go:build linux

package clients

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"herald/loadtest/measure"
	"herald/loadtest/wire"
)

// echo responds 200 to each request after calling before.
func echo(served *atomic.Int64, before func(n int64)) func(net.Conn) {
	return func(c net.Conn) {
		for request(c) != "" {
			before(served.Add(1))
			if _, err := c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")); err != nil {
				return
			}
		}
	}
}

func newCaller(t testing.TB, addr string, n int) *Caller {
	t.Helper()
	c, err := NewCaller(newLoop(t), addr, n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func get(dst []byte, _ int, _ time.Duration) []byte {
	return append(dst, "GET / HTTP/1.1\r\nHost: h\r\n\r\n"...)
}

func TestCallerClosedLoop(t *testing.T) {
	var served atomic.Int64
	s := newServer(t, echo(&served, func(int64) {}))
	c := newCaller(t, s.addr, 4)
	answered := 0 // on the loop's thread
	a := c.Do(t.Context(), Work{Count: 500, Request: get, Answer: func(int, wire.Response) { answered++ }})
	if a.Sent != 500 || a.OK != 500 || a.Failed != 0 || served.Load() != 500 || answered != 500 || a.Latency.Count() != 500 {
		t.Errorf("%+v, served %d, answered %d", a, served.Load(), answered)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.conns) != 4 {
		t.Errorf("%d connections", len(s.conns))
	}
}

// The schedule continues while the server stalls; latencies count from the due time.
func TestCallerOpenLoopCountsTheStall(t *testing.T) {
	const stall = 100 * time.Millisecond
	var served atomic.Int64
	s := newServer(t, echo(&served, func(n int64) {
		if n == 50 {
			time.Sleep(stall)
		}
	}))
	c := newCaller(t, s.addr, 1) // one connection: all requests wait
	a := c.Do(t.Context(), Work{Count: 200, Request: get, Schedule: measure.Schedule{PerSecond: 1000}})
	if a.OK != 200 {
		t.Fatalf("%+v", a)
	}
	// A hundred requests were due during the stall: half of all requests waited,
	// between zero and the whole stall.
	waited := 0
	for q := 0.0; q < 1; q += 0.005 {
		if a.Latency.Quantile(q) > stall/4 {
			waited++
		}
	}
	if waited < 60 {
		t.Errorf("%d of 200 waited for a quarter of the stall or longer", waited)
	}
	if slip := a.SendDelay.Quantile(0.75); slip > stall/4 {
		t.Errorf("waiting for the server counts as delay of the load generator: %v", slip)
	}
}

// Due requests are sent even after the time is up. Those that never get a connection
// are reported with their waiting time.
func TestCallerSendsWhatIsDue(t *testing.T) {
	var served atomic.Int64
	wake := make(chan struct{})
	s := newServer(t, echo(&served, func(n int64) {
		switch n {
		case 80:
			time.Sleep(60 * time.Millisecond) // beyond the end
		case 150:
			<-wake
		}
	}))
	c := newCaller(t, s.addr, 1)
	work := Work{For: 100 * time.Millisecond, Request: get, Schedule: measure.Schedule{PerSecond: 1000}}
	if a := c.Do(t.Context(), work); a.Sent != 100 || a.OK != 100 || a.Unsent.Count() != 0 || a.Latency.Quantile(0.9) < 20*time.Millisecond {
		t.Errorf("%d sent, %d unsent, p90 %v", a.Sent, a.Unsent.Count(), a.Latency.Quantile(0.9))
	}
	c.grace = 200 * time.Millisecond
	a := c.Do(t.Context(), work)
	close(wake)
	if a.Sent != 50 || a.OK != 49 || a.Failed != 1 || a.Unsent.Count() != 50 || a.Unsent.Quantile(0) < 200*time.Millisecond {
		t.Errorf("%d sent, %d failed, %d unsent: from %v to %v", a.Sent, a.Failed, a.Unsent.Count(), a.Unsent.Quantile(0), a.Unsent.Max())
	}
}

func TestCallerFailures(t *testing.T) {
	s := newServer(t, func(c net.Conn) {
		for n := 0; request(c) != ""; n++ {
			switch n {
			case 0:
				_, _ = c.Write([]byte("HTTP/1.1 503 X\r\nContent-Length: 4\r\n\r\nbusy"))
			case 1:
				_, _ = c.Write([]byte("garbage\r\n\r\n"))
			default:
				_ = c.Close()
				return
			}
		}
	})
	c := newCaller(t, s.addr, 1)
	failed := 0
	a := c.Do(t.Context(), Work{Count: 4, Request: get, Failed: func(int) { failed++ }})
	if a.Sent != 4 || a.OK != 0 || a.Failed != 4 || failed != 4 || !strings.Contains(a.Err.Error(), "503") {
		t.Errorf("%+v, %d reported as failed", a, failed)
	}
}

func TestCallerReconnectsAfterTheServerClosed(t *testing.T) {
	s := newServer(t, func(c net.Conn) {
		if request(c) != "" {
			_, _ = c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
			_ = c.Close()
		}
	})
	c := newCaller(t, s.addr, 1)
	for range 3 {
		if a := c.Do(t.Context(), Work{Count: 1, Request: get}); a.OK != 1 {
			t.Errorf("%+v", a)
		}
		for closed := false; !closed; {
			c.loop.Call(func() { closed = c.calls[0].fd < 0 })
		}
	}
}

func TestCallerEndsWithItsContext(t *testing.T) {
	var served atomic.Int64
	s := newServer(t, echo(&served, func(int64) {}))
	c := newCaller(t, s.addr, 2)
	ctx, cancel := context.WithCancel(t.Context())
	a := c.Do(ctx, Work{Request: get, Answer: func(i int, _ wire.Response) {
		if i == 100 {
			cancel()
		}
	}})
	if a.OK < 100 || a.Failed != 0 {
		t.Errorf("%+v", a)
	}
}

func TestCallerWaitsUntilReady(t *testing.T) {
	var served atomic.Int64
	s := newServer(t, echo(&served, func(int64) {}))
	c := newCaller(t, s.addr, 8)
	var room atomic.Int64
	room.Store(3)
	done := make(chan Answers)
	go func() {
		done <- c.Do(t.Context(), Work{Count: 5, Request: get, Ready: func() bool { return room.Add(-1) >= 0 }})
	}()
	for room.Load() > -2 { // Ready was polled again after the third request
		time.Sleep(time.Millisecond)
	}
	if served.Load() > 3 || c.Sent() != 3 {
		t.Errorf("%d sent", served.Load())
	}
	room.Store(1 << 40)
	if a := <-done; a.OK != 5 {
		t.Errorf("%+v", a)
	}
}

// fakeRedis replies 1 to each PUBLISH and counts it as received if keep says so.
func fakeRedis(t *testing.T, received *atomic.Int64, keep func(n int64) bool) *server {
	return newServer(t, func(c net.Conn) {
		buf := make([]byte, 64<<10)
		var rest []byte
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			rest = append(rest, buf[:n]...)
			commands := bytes.Count(rest, []byte("end\r\n"))
			rest = rest[bytes.LastIndex(rest, []byte("end\r\n"))+1:]
			for range commands {
				if keep(received.Load() + 1) {
					received.Add(1)
				}
			}
			_, _ = c.Write(bytes.Repeat([]byte(":1\r\n"), commands))
		}
	})
}

// patience is shorter than the default where messages are lost on purpose.
const patience = 200 * time.Millisecond

func publish(dst []byte, _ int, _ time.Duration) []byte {
	return append(dst, wire.Publish("c", []byte("xend"))...)
}

func TestRedisPublisher(t *testing.T) {
	var received atomic.Int64
	s := fakeRedis(t, &received, func(int64) bool { return true })
	p := RedisPublisher{Addr: s.addr, Command: publish, Received: received.Load, Window: 256, Batch: 64}.Run(t.Context(), newLoop(t), 50*time.Millisecond)
	if p.Err != nil || p.Lost != 0 || p.Sent < 128 || p.Sent != received.Load() {
		t.Errorf("%+v, received %d", p, received.Load())
	}
}

func TestRedisPublisherKeepsToItsWindow(t *testing.T) {
	var received atomic.Int64
	s := fakeRedis(t, &received, func(n int64) bool { return n <= 100 }) // then messages are lost
	p := RedisPublisher{Addr: s.addr, Command: publish, Received: received.Load, Window: 256, Batch: 64, patience: patience}.Run(t.Context(), newLoop(t), 20*time.Millisecond)
	if p.Err != nil || p.Sent > 100+256 || p.Lost != p.Sent-100 {
		t.Errorf("%+v", p)
	}
}

// On a schedule each message is due at its time, even if the window is full.
func TestRedisPublisherOnASchedule(t *testing.T) {
	var received atomic.Int64
	s := fakeRedis(t, &received, func(int64) bool { return true })
	var due []time.Duration // on the loop's thread
	command := func(dst []byte, i int, at time.Duration) []byte {
		due = append(due, at)
		return publish(dst, i, at)
	}
	redisPublisher := RedisPublisher{Addr: s.addr, Command: command, Received: received.Load, Window: 64, Batch: 64, Schedule: measure.Schedule{PerSecond: 1000}}
	p := redisPublisher.Run(t.Context(), newLoop(t), 100*time.Millisecond)
	if p.Err != nil || p.Sent != 100 || p.Lost != 0 || p.Unsent.Count() != 0 {
		t.Errorf("%+v", p)
	}
	for i := range due {
		if d := due[i] - due[0]; d != time.Duration(i)*time.Millisecond {
			t.Fatalf("the %d-th is due after %v", i, d)
		}
	}
	full := fakeRedis(t, &received, func(int64) bool { return received.Load() < 150 }) // then messages are lost
	redisPublisher.Addr, redisPublisher.patience = full.addr, patience
	if p := redisPublisher.Run(t.Context(), newLoop(t), 200*time.Millisecond); p.Sent > 50+64 || p.Unsent.Count() != 200-p.Sent || p.Lost != p.Sent-50 {
		t.Errorf("%+v, %d unsent", p, p.Unsent.Count())
	}
}

func TestRedisPublisherFails(t *testing.T) {
	s := newServer(t, func(c net.Conn) { _, _ = c.Write([]byte("-OOM no\r\n")); request(c) })
	var received atomic.Int64
	p := RedisPublisher{Addr: s.addr, Command: publish, Received: received.Load, Window: 64, Batch: 64}.Run(t.Context(), newLoop(t), 5*time.Second)
	if !errors.Is(p.Err, wire.ErrRedis) {
		t.Errorf("%+v", p)
	}
}
