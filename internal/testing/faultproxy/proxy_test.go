//go:build unix

package faultproxy

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	patience = 20 * time.Second       // how long anything that must happen may take
	silence  = 150 * time.Millisecond // how long is listened for what must not
)

// server is a target: it says hello, then answers each piece it reads with the same piece.
type server struct {
	addr string
	got  chan string // what it read, then "end" or "reset"; never closed; nil: it does not tell
}

func startServer(t *testing.T, hello string) *server {
	t.Helper()
	return startTarget(t, hello, make(chan string, 16))
}

func startTarget(t *testing.T, hello string, got chan string) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{addr: l.Addr().String(), got: got}
	var running sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			running.Go(func() { s.serve(c, hello) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		running.Wait()
	})
	return s
}

func (s *server) serve(c net.Conn, hello string) {
	defer c.Close()
	_, _ = io.WriteString(c, hello)
	buf := make([]byte, 4096)
	for {
		n, err := c.Read(buf)
		if n > 0 {
			s.tell(string(buf[:n]))
			_, _ = c.Write(buf[:n])
		}
		switch {
		case errors.Is(err, io.EOF):
			s.tell("end")
			return
		case err != nil:
			s.tell("reset")
			return
		}
	}
}

func (s *server) tell(what string) {
	if s.got != nil {
		s.got <- what
	}
}

// saw waits until the server has got exactly that.
func (s *server) saw(t *testing.T, want string) {
	t.Helper()
	select {
	case got := <-s.got:
		if got != want {
			t.Fatalf("the server got %q, want %q", got, want)
		}
	case <-time.After(patience):
		t.Fatalf("the server did not get %q", want)
	}
}

func (s *server) sawNothing(t *testing.T) {
	t.Helper()
	select {
	case got := <-s.got:
		t.Fatalf("the server got %q", got)
	case <-time.After(silence):
	}
}

type client struct {
	*net.TCPConn
	t *testing.T
}

func dial(t *testing.T, p *Proxy) client {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return client{c.(*net.TCPConn), t}
}

func (c client) says(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Fatal(err)
	}
}

func (c client) hears(want string) {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, len(want))
	if _, err := io.ReadFull(c, buf); err != nil || string(buf) != want {
		c.t.Fatalf("heard %q, %v; want %q", buf, err, want)
	}
}

func (c client) hearsNothing() {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(silence))
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatalf("heard %d bytes, %v; want silence", n, err)
	}
}

// ends waits for the connection's end.
func (c client) ends(want error) {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, want) {
		c.t.Fatalf("read %d bytes, %v; want %v", n, err, want)
	}
}

func talk(t *testing.T, s *server, c client, text string) {
	t.Helper()
	c.says(text)
	s.saw(t, text)
	c.hears(text)
}

func TestPass(t *testing.T) {
	s := startServer(t, "hello")
	p := Start(t, s.addr)
	c := dial(t, p)
	c.hears("hello")
	talk(t, s, c, "one")
	if n := p.Connections(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
	_ = c.CloseWrite()
	s.saw(t, "end")
	c.ends(io.EOF)
}

func TestAResetIsPassedOn(t *testing.T) {
	s := startServer(t, "")
	c := dial(t, Start(t, s.addr))
	talk(t, s, c, "one")
	_ = c.SetLinger(0)
	_ = c.Close()
	s.saw(t, "reset")
}

func TestLargeTransfersArriveWhole(t *testing.T) {
	s := startTarget(t, "", nil)
	p := Start(t, s.addr)
	p.Delay(0, time.Millisecond)
	c := dial(t, p)
	sent := make([]byte, 2<<20)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range sent {
		sent[i] = byte(r.Uint32())
	}
	var writer sync.WaitGroup
	writer.Go(func() { _, _ = c.Write(sent); _ = c.CloseWrite() })
	_ = c.SetReadDeadline(time.Now().Add(patience))
	got, err := io.ReadAll(c)
	writer.Wait()
	if err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("%d of %d bytes came back, %v", len(got), len(sent), err)
	}
}

func TestCut(t *testing.T) {
	s := startServer(t, "")
	p := Start(t, s.addr)
	a, b := dial(t, p), dial(t, p)
	talk(t, s, a, "a")
	talk(t, s, b, "b")
	if n := p.Cut(); n != 2 {
		t.Errorf("%d connections cut, want 2", n)
	}
	a.ends(syscall.ECONNRESET)
	b.ends(syscall.ECONNRESET)
	s.saw(t, "reset")
	s.saw(t, "reset")
	talk(t, s, dial(t, p), "c")
}

func TestCutSome(t *testing.T) {
	s := startServer(t, "")
	p := Start(t, s.addr)
	clients := make([]client, 4)
	for i := range clients {
		clients[i] = dial(t, p)
		talk(t, s, clients[i], "x")
	}
	i := 0
	odd := func() bool { i++; return i%2 == 0 }
	if n := p.CutSome(odd); n != 2 {
		t.Fatalf("%d connections cut, want 2", n)
	}
	clients[1].ends(syscall.ECONNRESET)
	clients[3].ends(syscall.ECONNRESET)
	s.saw(t, "reset")
	s.saw(t, "reset")
	talk(t, s, clients[0], "x")
	talk(t, s, clients[2], "x")
}

func TestRefuse(t *testing.T) {
	s := startServer(t, "")
	p := Start(t, s.addr)
	c := dial(t, p)
	talk(t, s, c, "one")
	for range 3 {
		p.Refuse()
		if _, err := net.Dial("tcp", p.Addr); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("dial: %v, want refused", err)
		}
		p.Pass()
		_ = dial(t, p)
	}
	c.ends(syscall.ECONNRESET)
}

func TestNobodyElseGetsARefusedPort(t *testing.T) {
	p := Start(t, "127.0.0.1:1")
	p.Refuse()
	if l, err := net.Listen("tcp", p.Addr); err == nil {
		_ = l.Close()
		t.Fatal("the port was free while it was refused")
	}
}

func TestATargetThatRefusesIsAReset(t *testing.T) {
	gone := Start(t, "127.0.0.1:1")
	gone.Refuse()
	p := Start(t, gone.Addr)
	c, err := net.Dial("tcp", p.Addr)
	if err == nil { // else the reset was here before dial had returned
		client{c.(*net.TCPConn), t}.ends(syscall.ECONNRESET)
		_ = c.Close()
	} else if !errors.Is(err, syscall.ECONNRESET) {
		t.Fatal(err)
	}
}

func TestSetTarget(t *testing.T) {
	one, two := startServer(t, "one"), startServer(t, "two")
	p := Start(t, one.addr)
	a := dial(t, p)
	a.hears("one")
	p.SetTarget(two.addr)
	dial(t, p).hears("two")
	talk(t, one, a, "still one")
}

func TestBlackhole(t *testing.T) {
	for name, d := range map[string]Direction{"to server": ToServer, "to client": ToClient, "both": Both} {
		t.Run(name, func(t *testing.T) {
			s := startServer(t, "")
			p := Start(t, s.addr)
			c := dial(t, p)
			talk(t, s, c, "one")
			p.Blackhole(d)
			c.says("two")
			_ = c.CloseWrite()
			if d&ToServer != 0 {
				s.sawNothing(t)
			} else {
				s.saw(t, "two")
				s.saw(t, "end")
			}
			c.hearsNothing() // not even the end
			p.Pass()
			if d&ToServer != 0 {
				s.saw(t, "two")
				s.saw(t, "end")
			}
			c.hears("two")
			c.ends(io.EOF)
		})
	}
}

func TestBlackholeReachesConnectionsMadeInIt(t *testing.T) {
	s := startServer(t, "hello")
	p := Start(t, s.addr)
	p.Blackhole(Both)
	c := dial(t, p)
	c.says("one")
	c.hearsNothing()
	s.sawNothing(t)
	p.Pass()
	c.hears("hello")
	s.saw(t, "one")
	p.Blackhole(ToClient)
	c = dial(t, p)
	c.says("two")
	s.saw(t, "two")
	c.hearsNothing()
}

func TestStrand(t *testing.T) {
	s := startServer(t, "")
	p := Start(t, s.addr)
	c := dial(t, p)
	talk(t, s, c, "one")
	if n := p.Strand(); n != 1 {
		t.Errorf("%d connections stranded, want 1", n)
	}
	c.says("two")
	talk(t, s, dial(t, p), "three")
	p.Pass()
	s.sawNothing(t)
	c.hearsNothing()
	p.Cut()
	c.ends(syscall.ECONNRESET)
}

func TestDelay(t *testing.T) {
	const delay = 60 * time.Millisecond // at least, each way
	s := startServer(t, "")
	p := Start(t, s.addr)
	c := dial(t, p)
	p.Delay(delay, 2*delay)
	began := time.Now()
	talk(t, s, c, "one")
	if took := time.Since(began); took < 2*delay {
		t.Errorf("there and back in %v, want %v or more", took, 2*delay)
	}
	p.Pass()
	talk(t, s, c, "two")
}

func TestDropReplies(t *testing.T) {
	s := startServer(t, "")
	p := Start(t, s.addr)
	p.DropReplies(1, "stored")
	c := dial(t, p)
	talk(t, s, c, "anything else")
	c.says("stored 1")
	s.saw(t, "stored 1")
	c.ends(syscall.ECONNRESET)
	s.saw(t, "reset")
	talk(t, s, dial(t, p), "stored 2")
}

func TestCloseInEveryMode(t *testing.T) {
	modes := map[string]func(*Proxy){
		"pass": (*Proxy).Pass, "refuse": (*Proxy).Refuse, "delay": func(p *Proxy) { p.Delay(time.Hour, time.Hour) },
		"blackhole": func(p *Proxy) { p.Blackhole(Both) }, "strand": func(p *Proxy) { p.Strand() },
	}
	for name, mode := range modes {
		t.Run(name, func(t *testing.T) {
			s := startServer(t, "")
			p := Start(t, s.addr)
			c := dial(t, p)
			talk(t, s, c, "one")
			mode(p)
			p.Close()
			c.ends(syscall.ECONNRESET)
			if _, err := net.Dial("tcp", p.Addr); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("dial after Close: %v", err)
			}
			mode(p) // does nothing any more
			p.Close()
		})
	}
}

// Modes change while many connections are made, used and ended: nothing hangs,
// and what is relayed is never garbled.
func TestModesUnderLoad(t *testing.T) {
	s := startTarget(t, "", nil)
	p := Start(t, s.addr)
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for i := range 8 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if got := exchange(p.Addr, i); !strings.HasPrefix("0123456789", got) {
					t.Errorf("got %q", got)
					return
				}
			}
		})
	}
	r := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		switch r.IntN(7) {
		case 0:
			p.Refuse()
		case 1:
			p.Cut()
		case 2:
			p.CutSome(func() bool { return r.IntN(2) == 0 })
		case 3:
			p.Blackhole(Direction(1 + r.IntN(3)))
		case 4:
			p.Delay(0, time.Millisecond)
		case 5:
			p.DropReplies(1, "5")
		default:
			p.Pass()
		}
		time.Sleep(time.Millisecond) // lets the clients meet the mode; nothing is waited for
	}
	close(stop)
	p.Close()
	clients.Wait()
}

// exchange sends ten digits and returns what came back before the connection ended.
func exchange(addr string, seed int) string {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return ""
	}
	defer c.Close()
	_, _ = io.WriteString(c, "0123456789")
	_ = c.SetReadDeadline(time.Now().Add(time.Duration(5+seed) * time.Millisecond))
	buf := make([]byte, 10)
	n, _ := io.ReadFull(c, buf)
	return string(buf[:n])
}
