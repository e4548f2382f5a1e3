package server

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// userTimeout is how long what we sent may stay unacknowledged before the
// kernel ends the connection: a peer that vanished without a word and is never
// heard from anyway, such as a reader of server-sent events, is freed then.
const userTimeout = 25 * time.Second

// setUserTimeout sets TCP_USER_TIMEOUT (RFC 5482). A kernel that refuses leaves
// the hub's own patience.
func setUserTimeout(raw syscall.RawConn) {
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
	})
}
