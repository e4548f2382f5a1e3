//go:build unix && !linux

package server

import (
	"net"
	"time"
)

// prepareAll does nothing: whether connections inherit differs.
func prepareAll(net.Listener) {}

// prepare sets what every connection needs.
func prepare(c *net.TCPConn) {
	_ = c.SetKeepAliveConfig(keepAlive)
	_ = c.SetWriteBuffer(sendBuffer)
}

// setUserTimeout does nothing here: the hub's own patience ends what a peer
// leaves unread.
func setUserTimeout(int, time.Duration) {}
