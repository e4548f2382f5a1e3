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
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(keepAlive.Idle/time.Second))
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(keepAlive.Interval/time.Second))
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, keepAlive.Count)
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer)
	})
}

// prepare does nothing: see prepareAll.
func prepare(*net.TCPConn) {}

// setUserTimeout sets TCP_USER_TIMEOUT (RFC 5482): how long what we sent may stay
// unacknowledged, or the peer's window shut, before the kernel ends the
// connection. A kernel that refuses leaves the hub's own patience.
func setUserTimeout(conn *net.TCPConn, d time.Duration) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
	})
}
