package transport

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// setListenerOptions sets on the listener what every connection needs. Accepted
// connections inherit it (tcp(7)), which saves five system calls each.
func setListenerOptions(l *net.TCPListener) {
	raw, err := l.SyscallConn()
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

// setOptions repeats the options that Go overwrites when it wraps a descriptor.
func setOptions(c *net.TCPConn) { _ = c.SetKeepAliveConfig(keepAlive) }

// setUserTimeout sets TCP_USER_TIMEOUT (RFC 5482): how long sent bytes may stay
// unacknowledged, or the peer's window closed, before the kernel closes the connection.
// 0 leaves the default. If the kernel refuses, the hub's own deadline remains.
func setUserTimeout(fd int, d time.Duration) {
	if d > 0 {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
	}
}
