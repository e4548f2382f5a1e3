package server

import (
	"errors"
	"net"
	"time"

	"herald/hub"
	"herald/internal/transport"
)

// peerConn is a connection that was taken over from fasthttp. Its bytes out go
// through hub.Transport; its bytes in go to a receiver.
type peerConn interface {
	hub.Transport
	// start begins to read. After an error nothing has begun, and the caller
	// abandons it.
	start(r receiver) error
	// abandon closes a connection that was not started.
	abandon()
}

// receiver gets what a connection brings. Its methods are called one at a time,
// and must not wait for anything: others may be served by the same goroutine.
type receiver interface {
	// receive is lent p, and returns false to end the connection.
	receive(p []byte) bool
	// end is called once, last: nothing more comes, and once it has returned the
	// connection is closed.
	end()
}

var errNotTCP = errors.New("not a TCP connection")

// sendBuffer bounds what the kernel holds for a peer that doesn't read, in bytes;
// it would otherwise grow to megabytes.
const sendBuffer = 64 << 10

// keepAlive notices a peer that vanished while idle, even before it is upgraded.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 3}

// adopt takes a connection over, which its owner may close then: into an event
// loop, or where there are none into a goroutine of its own. A peer that is never
// heard from (chatty is false) is watched by the kernel.
func (s *Server) adopt(raw net.Conn, chatty bool) (peerConn, error) {
	a, ok := raw.(*transport.Accepted)
	if !ok {
		return nil, errNotTCP
	}
	patience := time.Duration(0)
	if !chatty {
		patience = readerTimeout
	}
	if s.loops != nil {
		return s.loops.adopt(a, patience)
	}
	return s.adoptPlain(a, patience)
}
