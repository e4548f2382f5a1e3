package server

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// prepareAll sets what every connection needs, on the listener: accepted ones
// inherit it (tcp(7)), which spares each five system calls.
func prepareAll(l net.Listener) {
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(p uintptr) {
		fd := int(p)
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(keepAlive.Idle/time.Second))
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(keepAlive.Interval/time.Second))
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, keepAlive.Count)
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer)
	})
}

// prepare sets again what Go has set otherwise.
func prepare(c *net.TCPConn) { _ = c.SetKeepAliveConfig(keepAlive) }

// setUserTimeout sets TCP_USER_TIMEOUT (RFC 5482): how long what we sent may stay
// unacknowledged, or the peer's window shut, before the kernel ends the
// connection; 0: as long as it likes. A kernel that refuses leaves the hub's own
// patience.
func setUserTimeout(fd int, d time.Duration) {
	if d > 0 {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
	}
}
