package server

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// TestConnectionsInherit: what prepareAll sets on a listener holds for what it
// accepts.
func TestConnectionsInherit(t *testing.T) {
	l, err := (&net.ListenConfig{KeepAlive: -1}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	prepareAll(l)
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) {
		for _, o := range []struct {
			name              string
			level, opt, value int
		}{
			{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 30},
			{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 10},
			{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3},
			{"SO_SNDBUF", unix.SOL_SOCKET, unix.SO_SNDBUF, 2 * sendBuffer}, // socket(7): the kernel doubles it
		} {
			if v, err := unix.GetsockoptInt(int(fd), o.level, o.opt); v != o.value || err != nil {
				t.Errorf("%s is %d, want %d (%v)", o.name, v, o.value, err)
			}
		}
	})
}
