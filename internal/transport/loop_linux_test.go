package transport

import (
	"io"
	"net"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// connect returns a client's end of a TCP connection, and the engine's.
func connect(t *testing.T, e *Engine) (*net.TCPConn, Conn) {
	t.Helper()
	a, client := accept(t, listen(t, "127.0.0.1:0"), "")
	c, err := e.Adopt(a, 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = a.Close()
	return client, c
}

// A panic in one client's receiver closes that client only and leaks no descriptor.
func TestLoopSurvivesPanics(t *testing.T) {
	var panics atomic.Int32
	for _, goroutines := range []bool{false, true} {
		panics.Store(0)
		e, err := NewEngine(Options{Goroutines: goroutines, Panicked: func(any) { panics.Add(1) }})
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			client, conn := connect(t, e)
			r := panicReceiver{make(chan struct{})}
			if err := conn.Start(r); err != nil {
				t.Fatal(err)
			}
			if _, err := client.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			<-r.ended
			if _, err := client.Read(make([]byte, 1)); err != io.EOF {
				t.Fatalf("after the panic: %v", err)
			}
		}
		if n := panics.Load(); n != 20 {
			t.Errorf("%d panics were reported, want 20", n)
		}
		e.Stop()
	}
}

type panicReceiver struct{ ended chan struct{} }

func (panicReceiver) Receive([]byte) bool { panic("on purpose") }
func (r panicReceiver) End()              { close(r.ended) }

// A client that sends without pause does not keep its event loop from other clients.
func TestLoopServesOthersBesideAClientThatNeverStops(t *testing.T) {
	l, err := newLoop(func(v any) { t.Errorf("panic: %v", v) })
	if err != nil {
		t.Fatal(err)
	}
	e := &Engine{loops: &loops{list: []*loop{l}}}
	e.loops.wg.Go(l.run)
	t.Cleanup(e.Stop)

	heard := make(chan struct{})
	quiet, quietConn := socketPair(t, l)
	other := &countingReceiver{receive: func([]byte) bool { close(heard); return false }, ended: make(chan struct{})}
	if err := quietConn.Start(other); err != nil {
		t.Fatal(err)
	}
	noisy, noisyConn := socketPair(t, l)
	refill := make([]byte, loopBuffer)
	reads := 0
	flood := &countingReceiver{ended: make(chan struct{}), receive: func(p []byte) bool {
		select {
		case <-heard:
			return false
		default:
		}
		if reads++; reads == 2 {
			_, _ = rawWrite(quiet, []byte("x"))
		}
		if reads > 1000 {
			t.Error("a thousand reads of one connection, and none of the other")
			return false
		}
		for sent := 0; sent < len(p); { // the client always has more
			n, err := rawWrite(noisy, refill[:len(p)-sent])
			if err != nil {
				t.Error(err)
				return false
			}
			sent += n
		}
		return true
	}}
	for range 3 { // more than one buffer waits from the beginning
		if _, err := rawWrite(noisy, refill); err != nil {
			t.Fatal(err)
		}
	}
	if err := noisyConn.Start(flood); err != nil {
		t.Fatal(err)
	}
	<-flood.ended
	_ = unix.Shutdown(quiet, unix.SHUT_RDWR)
	<-other.ended
}

// socketPair returns a descriptor whose peer is a connection of the loop.
func socketPair(t *testing.T, l *loop) (fd int, c *loopConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<20)
	}
	t.Cleanup(func() { _ = unix.Close(fds[0]) })
	return fds[0], &loopConn{loop: l, fd: fds[1]}
}

type countingReceiver struct {
	receive func(p []byte) bool
	ended   chan struct{}
}

func (r *countingReceiver) Receive(p []byte) bool { return r.receive(p) }
func (r *countingReceiver) End()                  { close(r.ended) }
