package transport

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// The options of the listener hold for accepted connections, whether Go's poller has
// managed them before or not.
func TestConnectionsInherit(t *testing.T) {
	inner, err := (&net.ListenConfig{KeepAlive: -1}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := Listen(inner)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	for _, waited := range []bool{false, true} {
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
		a := c.(*accepted)
		if waited {
			if _, err := a.tcp(); err != nil {
				t.Fatal(err)
			}
		}
		fd, err := a.detach()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = unix.Close(fd) }()
		for _, o := range []struct {
			name              string
			level, opt, value int
		}{
			{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
			{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 30},
			{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 10},
			{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3},
			{"SO_SNDBUF", unix.SOL_SOCKET, unix.SO_SNDBUF, 2 * sendBuffer}, // socket(7): the kernel doubles it
		} {
			if v, err := unix.GetsockoptInt(fd, o.level, o.opt); v != o.value || err != nil {
				t.Errorf("%s is %d, want %d (%v); through the poller: %t", o.name, v, o.value, err, waited)
			}
		}
	}
}
