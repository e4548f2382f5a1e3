package transport

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	inner, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Listen(inner)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// accept returns a connection and its peer, which has sent the text before.
func accept(t *testing.T, l net.Listener, said string) (*accepted, *net.TCPConn) {
	t.Helper()
	peer, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = peer.Close() })
	_, _ = peer.Write([]byte(said))
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.(*accepted), peer.(*net.TCPConn)
}

// A request that has arrived is read and answered without Go's poller, and the
// descriptor is detached.
func TestAcceptedIsNotWaitedFor(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(address, func(t *testing.T) {
			if list, _ := os.ReadFile("/proc/net/if_inet6"); address == "[::1]:0" && !bytes.Contains(list, []byte("00000000000000000000000000000001 ")) {
				t.Skip("this machine has no ::1")
			}
			l := listen(t, address)
			a, peer := accept(t, l, "ask")
			if a.RemoteAddr().String() != peer.LocalAddr().String() || a.LocalAddr().String() != peer.RemoteAddr().String() {
				t.Errorf("from %v to %v; the peer is %v, at %v", a.RemoteAddr(), a.LocalAddr(), peer.LocalAddr(), peer.RemoteAddr())
			}
			b := make([]byte, 10)
			if n, err := a.Read(b); string(b[:n]) != "ask" || err != nil {
				t.Fatalf("read %q, %v", b[:n], err)
			}
			if n, err := a.Write([]byte("answer")); n != 6 || err != nil {
				t.Fatalf("wrote %d, %v", n, err)
			}
			if a.conn.Load() != nil {
				t.Error("Go's poller manages it")
			}
			fd, err := a.detach()
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = unix.Close(fd) }()
			for _, err := range []error{a.Close(), second(a.detach()), second(a.tcp()), second(a.Read(b)), second(a.Write(b)), a.SetDeadline(time.Time{})} {
				if !errors.Is(err, net.ErrClosed) {
					t.Errorf("after detach: %v", err)
				}
			}
			if _, err := unix.Write(fd, []byte(", and more")); err != nil {
				t.Errorf("write: %v", err)
			}
			b = make([]byte, 16)
			if _, err := io.ReadFull(peer, b); string(b) != "answer, and more" || err != nil {
				t.Errorf("the peer has %q, %v", b, err)
			}
		})
	}
}

func second[T any](_ T, err error) error { return err }

// A connection that must wait, in the middle of a read or a write, is handed to Go's
// poller and keeps its deadlines.
func TestAcceptedIsWaitedFor(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	a, peer := accept(t, l, "")
	_ = a.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	b := make([]byte, 10)
	if n, err := a.Read(b); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("nothing comes: %d, %v", n, err)
	}
	if a.conn.Load() == nil {
		t.Fatal("the poller does not manage a connection that had to wait")
	}
	_ = a.SetDeadline(time.Time{})
	_, _ = peer.Write([]byte("ask"))
	if n, err := a.Read(b); string(b[:n]) != "ask" || err != nil {
		t.Errorf("read %q, %v", b[:n], err)
	}
	fd, err := a.detach()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if _, err := unix.Write(fd, []byte("x")); err != nil {
		t.Errorf("closed with the connection: %v", err)
	}

	a, peer = accept(t, l, "")
	text := bytes.Repeat([]byte("0123456789"), 1<<20)
	var got []byte
	var reading sync.WaitGroup
	reading.Go(func() { got, _ = io.ReadAll(peer) })
	if n, err := a.Write(text); n != len(text) || err != nil {
		t.Errorf("wrote %d, %v", n, err)
	}
	_ = a.Close()
	reading.Wait()
	if !bytes.Equal(got, text) {
		t.Errorf("the peer has %d bytes", len(got))
	}
}

func TestAcceptedEnds(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	a, peer := accept(t, l, "ask")
	_ = a.SetDeadline(time.Unix(1, 0))
	b := make([]byte, 10)
	for what, err := range map[string]error{"read": second(a.Read(b)), "write": second(a.Write(b))} {
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s past the deadline, though it could: %v", what, err)
		}
	}
	_ = a.SetDeadline(time.Time{})
	_ = peer.CloseWrite()
	if text, err := io.ReadAll(a); string(text) != "ask" || err != nil {
		t.Errorf("read %q, %v", text, err)
	}
	if n, err := a.Read(nil); n != 0 || err != nil {
		t.Errorf("nothing asked for: %d, %v", n, err)
	}

	a, _ = accept(t, l, "")
	reading := make(chan error)
	go func() { reading <- second(a.Read(b)) }()
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if err := <-reading; !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed while it is read: %v", err)
	}
	if err := a.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed twice: %v", err)
	}

	a, peer = accept(t, l, "")
	_ = peer.SetLinger(0)
	_ = peer.Close()
	if _, err := a.Read(b); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("reset: %v", err)
	}
}

func TestListen(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	ended := make(chan error)
	go func() { ended <- second(l.Accept()) }()
	_ = l.Close()
	for _, err := range []error{<-ended, second(l.Accept())} {
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept: %v", err)
		}
	}
	if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
		_ = c.Close()
		t.Error("the closed listener accepts connections")
	}
	other, err := net.Listen("unix", filepath.Join(t.TempDir(), "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	if same, err := Listen(other); same != other || err != nil {
		t.Errorf("%v, %v", same, err)
	}
}

// Concurrent Close, detach and deadlines leave no descriptor open and touch no other.
func TestAcceptedInDisorder(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	before := descriptors(t)
	var all sync.WaitGroup
	for i := range 200 {
		a, peer := accept(t, l, "ask")
		all.Go(func() {
			var each sync.WaitGroup
			each.Go(func() { _, _ = io.ReadAll(a) })
			each.Go(func() { _, _ = a.Write([]byte("answer")) })
			each.Go(func() { _ = a.SetDeadline(time.Now().Add(time.Minute)); _ = a.LocalAddr() })
			each.Go(func() {
				if i%2 == 0 {
					_, _ = a.tcp()
				}
			})
			each.Go(func() {
				if i%3 == 0 {
					if fd, err := a.detach(); err == nil {
						_ = unix.Close(fd)
					}
				}
				_ = a.Close()
			})
			each.Wait()
			_ = a.Close()
			_, _ = io.ReadAll(peer)
			_ = peer.Close()
		})
	}
	all.Wait()
	if now := descriptors(t); now > before {
		t.Errorf("%d descriptors, %d before", now, before)
	}
}

func descriptors(t *testing.T) int {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
