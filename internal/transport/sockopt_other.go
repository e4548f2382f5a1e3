//go:build unix && !linux

package transport

import (
	"net"
	"time"
)

// setOptions sets what every connection needs. Systems differ in what connections
// inherit from their listener, so each is set by itself.
func setOptions(c *net.TCPConn) {
	_ = c.SetKeepAliveConfig(keepAlive)
	_ = c.SetWriteBuffer(sendBuffer)
}

// setUserTimeout does nothing here: the hub's own deadline closes the connection of a
// peer that does not read.
func setUserTimeout(int, time.Duration) {}
