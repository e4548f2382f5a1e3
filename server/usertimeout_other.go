//go:build unix && !linux

package server

import (
	"net"
	"time"
)

// setUserTimeout does nothing here: the hub's own patience ends what a peer
// leaves unread.
func setUserTimeout(*net.TCPConn, time.Duration) {}
