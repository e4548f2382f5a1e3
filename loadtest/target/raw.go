//go:build linux

package target

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"herald/loadtest/wire"
)

// Raw writes are the lower bound for deliveries: a process that only writes a ready
// frame to each of its sockets, with one system call each. It accepts any handshake
// and reads nothing after it.

// RawFrame is the frame size in bytes: a message of 200 bytes with its header and a
// small envelope.
const RawFrame = 210

// RawUsage is the cost of the writes.
type RawUsage struct {
	Writes  int64         `json:"writes"`
	CPU     time.Duration `json:"cpu"` // of the process while it wrote (getrusage(2))
	Blocked int64         `json:"blocked"`
}

// RawWriter is the main function of that process. It prints its address, accepts n
// sockets, writes a round for each line of in, which holds a stamp as two numbers,
// and prints RawUsage at the end of in.
func RawWriter(n int, in io.Reader, out io.Writer) error {
	l, err := rawListen(n)
	if err != nil {
		return err
	}
	addr, err := unix.Getsockname(l)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "127.0.0.1:%d\n", addr.(*unix.SockaddrInet4).Port)
	fds, err := rawAccept(l, n)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "accepted")
	usage, err := rawRounds(fds, in, out)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(usage)
}

func rawListen(backlog int) (int, error) {
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	if err := unix.Bind(l, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, err
	}
	return l, unix.Listen(l, backlog)
}

// rawAccept accepts the sockets one after another with blocking calls, because a
// poller would add to the cost of each write.
func rawAccept(l, n int) (fds []int, err error) {
	buf := make([]byte, 4<<10)
	for range n {
		fd, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
		if err != nil {
			return nil, fmt.Errorf("accept: %w", err)
		}
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		for size := 0; !bytes.Contains(buf[:size], []byte("\r\n\r\n")); {
			m, err := unix.Read(fd, buf[size:])
			if err != nil || m == 0 {
				return nil, fmt.Errorf("handshake: %w", errors.Join(err, io.ErrUnexpectedEOF))
			}
			size += m
		}
		if _, err := unix.Write(fd, wire.SwitchingProtocols); err != nil {
			return nil, fmt.Errorf("handshake: %w", err)
		}
		if err := unix.SetNonblock(fd, true); err != nil {
			return nil, err
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

func rawRounds(fds []int, in io.Reader, out io.Writer) (u RawUsage, err error) {
	payload := wire.Message(RawFrame - 4)
	frame := wire.NewTemplate(append([]byte{0x81, 126, byte(len(payload) >> 8), byte(len(payload))}, payload...))
	var b []byte
	for s := bufio.NewScanner(in); s.Scan(); {
		due, number, _ := strings.Cut(s.Text(), " ")
		at, err1 := strconv.ParseInt(due, 10, 64)
		i, err2 := strconv.ParseUint(number, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return u, err
		}
		b = frame.Append(b[:0], 0, wire.Stamp{Due: time.Duration(at), Number: uint32(i)})
		began := ownUsage()
		for _, fd := range fds {
			if _, err := unix.Write(fd, b); err == unix.EAGAIN {
				u.Blocked++
			} else if err != nil {
				return u, fmt.Errorf("write: %w", err)
			}
		}
		u.CPU += ownUsage() - began
		u.Writes += int64(len(fds))
	}
	return u, nil
}

func ownUsage() time.Duration {
	var r unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// raw is the dialect of RawWriter.
type raw struct{ simple }

func (raw) Upgrade(host string, _ int, _ int64) []byte { return wire.Upgrade(host, "/") }

// Raw is a RawWriter in a child process.
type Raw struct {
	*Server
	process *process
}

// StartRaw starts a RawWriter: program with args must call it.
func StartRaw(ctx context.Context, program string, args ...string) (*Raw, error) {
	p, err := start("the raw writer", processOptions{}, program, args...)
	if err != nil {
		return nil, err
	}
	r := &Raw{&Server{Dialect: raw{}, Name: "raw writes"}, p}
	r.stop = append(r.stop, p.stop)
	if r.Addr, err = p.line(ctx, patience); err == nil {
		_, err = net.ResolveTCPAddr("tcp4", r.Addr)
	}
	if err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// Accepted waits until the child has accepted all sockets.
func (r *Raw) Accepted(ctx context.Context) error {
	_, err := r.process.line(ctx, patience)
	return err
}

// Round makes the child write one frame to each socket.
func (r *Raw) Round(s wire.Stamp) error {
	_, err := fmt.Fprintln(r.process.stdin, int64(s.Due), s.Number)
	return err
}

// Finish ends the rounds and returns their cost.
func (r *Raw) Finish(ctx context.Context) (u RawUsage, err error) {
	if err := r.process.stdin.Close(); err != nil {
		return u, err
	}
	line, err := r.process.line(ctx, patience)
	if err != nil {
		return u, err
	}
	return u, json.Unmarshal([]byte(line), &u)
}
