//go:build unix && !linux

package server

import (
	"syscall"
	"time"
)

// setUserTimeout does nothing here: the hub's own patience ends what a peer
// leaves unread.
func setUserTimeout(syscall.RawConn, time.Duration) {}
