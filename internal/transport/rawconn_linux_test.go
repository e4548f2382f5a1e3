package transport

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

// pair returns a Conn and its peer.
func pair(t *testing.T) (*rawConn, *net.TCPConn) {
	mine, peer := tcpPair(t)
	c, err := newRawConn(mine)
	if err != nil {
		t.Fatal(err)
	}
	return c, peer
}

func tcpPair(t *testing.T) (a, b *net.TCPConn) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	dialed, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = dialed.Close(), accepted.Close() })
	return accepted.(*net.TCPConn), dialed.(*net.TCPConn)
}

// TestConn sends more than any buffer holds in both directions at once.
func TestConn(t *testing.T) {
	c, peer := pair(t)
	there, back := bytes.Repeat([]byte("there"), 4<<20), bytes.Repeat([]byte("and back"), 2<<20)
	var work sync.WaitGroup
	work.Go(func() {
		if n, err := c.Write(there); n != len(there) || err != nil {
			t.Errorf("wrote %d, %v", n, err)
		}
		_ = c.CloseWrite()
	})
	work.Go(func() {
		if got, err := io.ReadAll(c); !bytes.Equal(got, back) || err != nil {
			t.Errorf("read %d bytes, %v", len(got), err)
		}
	})
	work.Go(func() {
		_, _ = peer.Write(back)
		_ = peer.CloseWrite()
	})
	if got, err := io.ReadAll(peer); !bytes.Equal(got, there) || err != nil {
		t.Errorf("peer read %d bytes, %v", len(got), err)
	}
	work.Wait()
	if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("at the end: %d, %v", n, err)
	}
	if n, err := c.Read(nil); n != 0 || err != nil {
		t.Errorf("nothing asked for: %d, %v", n, err)
	}
}

func TestConnFails(t *testing.T) {
	c, peer := pair(t)
	_ = c.SetReadDeadline(time.Unix(1, 0))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("past the deadline: %v", err)
	}
	_ = c.SetDeadline(time.Time{})

	_ = peer.SetLinger(0)
	_ = peer.Close() // resets
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after a reset: %v", err)
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("written after a reset: %v", err)
	}
	_ = c.Close()
	if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("written after the end: %v", err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after the end: %v", err)
	}

	c, _ = pair(t)
	closed := make(chan error)
	go func() { _, err := c.Read(make([]byte, 1)); closed <- err }()
	_ = c.Close()
	if err := <-closed; !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed while reading: %v", err)
	}
}

// check is what go-redis does before it uses a connection of its pool (its
// internal/pool/conn_check.go).
func check(c syscall.Conn) (state error, asked bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return err, false
	}
	if err := raw.Read(func(fd uintptr) bool {
		asked = true
		var b [1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		switch {
		case n == 0 && err == nil:
			state = io.EOF
		case n > 0:
			state = errUnexpected
		case !errors.Is(err, syscall.EAGAIN):
			state = err
		}
		return true
	}); err != nil {
		return err, asked
	}
	return state, asked
}

var errUnexpected = errors.New("unexpected read from socket")

func TestPoolConn(t *testing.T) {
	mine, peer := tcpPair(t)
	c, err := NewPoolConn(mine)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err, asked := check(c); err != nil || asked {
			t.Errorf("quiet: %v, asked: %v", err, asked)
		}
		_, _ = peer.Write([]byte("x"))
		awaitReadable(t, c)
		if err, _ := check(c); err != errUnexpected {
			t.Errorf("with something to read: %v", err)
		}
		_, _ = c.Read(make([]byte, 1))
	}
	_ = peer.Close()
	awaitReadable(t, c)
	if err, _ := check(c); err != io.EOF {
		t.Errorf("closed by the peer: %v", err)
	}
	_ = c.Close()
	if err, _ := check(c); err == nil {
		t.Error("closed: found well")
	}
}

func awaitReadable(t *testing.T, c *PoolConn) {
	err := c.raw.Read(func(fd uintptr) bool {
		_, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		return err != syscall.EAGAIN
	})
	if err != nil {
		t.Fatal(err)
	}
}
