// Package transport moves the bytes of many TCP connections at little cost: Listen
// accepts them, Engine.Adopt takes one over from the HTTP server, and Conn writes
// without waiting while event loops read. It does not interpret the bytes.
//
// On Linux an adopted connection has neither a goroutine nor a buffer while it is idle,
// and system calls that cannot block are made without telling Go's scheduler. On other
// systems, and with Options.Goroutines, each connection has a goroutine that reads.
package transport

import (
	"errors"
	"net"
	"time"
)

// Conn is a connection that was adopted. Write, Drain and Close are called one at a time.
type Conn interface {
	// Write writes what the kernel takes now, perhaps nothing, and never waits.
	Write(p []byte) (int, error)
	// Drain calls step, once or more, when the connection can take more, until step
	// returns true. step must write with the function that it gets.
	Drain(step func(write func([]byte) (int, error)) bool)
	// Close shuts the connection down in both directions and returns at once. Its
	// Receiver ends soon after.
	Close()
	// Start begins to read into r. After an error nothing has begun, and the caller
	// must call Abandon.
	Start(r Receiver) error
	// Abandon closes a connection that was not started.
	Abandon()
}

// Receiver gets what a connection brings. Its methods are called one at a time and
// must not block: other connections may wait for the same goroutine.
type Receiver interface {
	// Receive may use p until it returns. It returns false to close the connection.
	Receive(p []byte) bool
	// End is called once, last. The connection is closed after it has returned.
	End()
}

// Options configures an Engine. The zero value works.
type Options struct {
	Goroutines bool        // read each connection in a goroutine, also where there are event loops
	Panicked   func(v any) // gets what a Receiver panicked with; its connection is closed. Default: ignored
}

// Engine reads from adopted connections.
type Engine struct {
	loops    *loops // nil: each connection has a goroutine
	panicked func(v any)
}

// NewEngine starts an engine: on Linux one event loop for each processor.
func NewEngine(o Options) (*Engine, error) {
	if o.Panicked == nil {
		o.Panicked = func(any) {}
	}
	e := &Engine{panicked: o.Panicked}
	if o.Goroutines {
		return e, nil
	}
	var err error
	e.loops, err = newLoops(o.Panicked)
	return e, err
}

// Stop stops the event loops. All connections must have ended before.
func (e *Engine) Stop() {
	if e.loops != nil {
		e.loops.stop()
	}
}

// Adopt takes over a connection that a listener of Listen accepted. The caller must
// close raw afterwards and not use it otherwise; the adopted connection stays open.
// Nothing is read before Start. If the peer acknowledges nothing for longer than
// unacked, the kernel closes the connection (TCP_USER_TIMEOUT, RFC 5482); 0 means no
// such limit, and so do systems other than Linux.
func (e *Engine) Adopt(raw net.Conn, unacked time.Duration) (Conn, error) {
	a, ok := raw.(*accepted)
	if !ok {
		return nil, errNotAccepted
	}
	if e.loops != nil {
		return e.loops.adopt(a, unacked)
	}
	return e.adoptGoroutine(a, unacked)
}

var errNotAccepted = errors.New("transport: not a TCP connection of Listen")

// sendBuffer bounds, in bytes, what the kernel holds for a peer that does not read.
// Without it the buffer grows to megabytes.
const sendBuffer = 64 << 10

// keepAlive notices a peer that vanished while idle, within about a minute.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 3}
