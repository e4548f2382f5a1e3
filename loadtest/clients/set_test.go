//go:build linux

package clients

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"herald/loadtest/loop"
	"herald/loadtest/measure"
	"herald/loadtest/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newLoop(t testing.TB) *loop.Loop {
	t.Helper()
	l, err := loop.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// server accepts connections on 127.0.0.1 and passes each to serve, which owns it.
type server struct {
	addr  string
	mu    sync.Mutex
	conns []net.Conn // guarded by mu
}

func newServer(t testing.TB, serve func(net.Conn)) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{addr: l.Addr().String()}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns = append(s.conns, c)
			s.mu.Unlock()
			all.Go(func() { serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		s.mu.Lock()
		for _, c := range s.conns {
			_ = c.Close()
		}
		s.mu.Unlock()
		all.Wait()
	})
	return s
}

// request reads one request without a body; "" at the end of the stream.
func request(c net.Conn) string {
	var b []byte
	for one := make([]byte, 1); !bytes.HasSuffix(b, []byte("\r\n\r\n")); {
		if _, err := c.Read(one); err != nil {
			return ""
		}
		b = append(b, one[0])
	}
	return string(b)
}

func text(payload string) []byte { return append([]byte{0x81, byte(len(payload))}, payload...) }

// stamped returns a text frame with a stamp.
func stamped(due time.Duration, number uint32) []byte {
	m := wire.Message(100)
	return wire.NewTemplate(append([]byte{0x81, byte(len(m))}, m...)).Append(nil, 0, wire.Stamp{Due: due, Number: number})
}

// speaker is a dialect with the greeting "hi" and the user in the path.
type speaker struct{ greets bool }

func (s speaker) Upgrade(host string, user int, since int64) []byte {
	return wire.Upgrade(host, fmt.Sprintf("/%s?since=%d", wire.UserID(user), since))
}
func (s speaker) Greets() bool { return s.greets }
func (s speaker) Frame(payload []byte) ([]byte, bool) {
	if string(payload) == "knock" {
		return []byte("who"), false
	}
	return nil, string(payload) == "hi"
}

func newSet(t testing.TB, addr string, greets bool, o Options) *Set {
	t.Helper()
	c, err := New(addr, speaker{greets}, []*loop.Loop{newLoop(t), newLoop(t)}, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func list(n int) []int {
	users := make([]int, n)
	for i := range users {
		users[i] = i
	}
	return users
}

func TestSocketsReceiveAndAnswer(t *testing.T) {
	var pongs, sources sync.Map
	s := newServer(t, func(c net.Conn) {
		head := request(c)
		host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		sources.Store(host, true)
		// Handshake, greeting and messages in a single write.
		b := append(bytes.Clone(wire.SwitchingProtocols), text("knock")...)
		b = append(append(b, text("hi")...), 0x89, 3, 'a', 'b', 'c')
		b = append(append(b, stamped(loop.Now(), 1)...), stamped(loop.Now(), 2)...)
		_, _ = c.Write(b)
		buf := make([]byte, 128)
		var got []byte
		for len(got) < 2*6+3+3 {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			got = append(got, buf[:n]...)
		}
		pongs.Store(strings.Fields(head)[1], string(got))
	})
	c := newSet(t, s.addr, true, Options{})
	stop := c.Record()
	a := c.Connect(t.Context(), ConnectPlan{Users: list(20)})
	if a.Opened != 20 || a.Failed != 0 || a.Latency.Count() != 20 {
		t.Fatalf("%+v", a)
	}
	if got := c.AwaitReceived(t.Context(), 40, 5*time.Second); got != 40 {
		t.Fatalf("received %d of 40", got)
	}
	h := stop()
	if h.Count() != 40 || h.Max() > time.Minute {
		t.Errorf("%d latencies up to %v", h.Count(), h.Max())
	}
	n := 0
	sources.Range(func(any, any) bool { n++; return true })
	if n != 20 {
		t.Errorf("%d source addresses for 20 sockets", n)
	}
	want := "\x81\x83\x00\x00\x00\x00who\x8a\x83\x00\x00\x00\x00abc"
	deadline := time.Now().Add(5 * time.Second)
	for {
		n = 0
		pongs.Range(func(k, v any) bool {
			if n++; v != want {
				t.Errorf("%v was answered %q", k, v)
			}
			return true
		})
		if n == 20 || time.Now().After(deadline) {
			break
		}
		time.Sleep(time.Millisecond) // no event signals the last read
	}
	if _, ok := pongs.Load("/" + wire.UserID(19) + "?since=-1"); !ok || n != 20 {
		t.Errorf("%d answers", n)
	}
	if c.Open() != 20 || len(c.CloseCodes()) != 0 {
		t.Errorf("%d open, close codes %v", c.Open(), c.CloseCodes())
	}
}

func TestRefusedUpgrades(t *testing.T) {
	s := newServer(t, func(c net.Conn) {
		request(c)
		_, _ = c.Write([]byte("HTTP/1.1 401 Unauthorized\r\nContent-Length: 6\r\n\r\nno sid"))
	})
	c := newSet(t, s.addr, true, Options{})
	a := c.Connect(t.Context(), ConnectPlan{Users: list(10)})
	if a.Opened != 0 || a.Failed != 10 || a.Err == nil || !strings.Contains(a.Err.Error(), "401 no sid") {
		t.Errorf("%+v", a)
	}
}

func TestConnectionRefused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	c := newSet(t, addr, false, Options{})
	if a := c.Connect(t.Context(), ConnectPlan{Users: list(5)}); a.Failed != 5 || a.Err == nil {
		t.Errorf("%+v", a)
	}
}

func TestAServerThatNeverAnswers(t *testing.T) {
	s := newServer(t, func(c net.Conn) { request(c) })
	c := newSet(t, s.addr, false, Options{})
	a := c.Connect(t.Context(), ConnectPlan{Users: list(100), Concurrency: 10, Timeout: 50 * time.Millisecond})
	if a.Failed != 100 || !errors.Is(a.Err, context.DeadlineExceeded) {
		t.Errorf("%d failed, %v", a.Failed, a.Err)
	}
}

// On an open-loop schedule, latency includes the wait for a slow server.
func TestConnectLatencyCountsFromTheDueTime(t *testing.T) {
	s := newServer(t, func(c net.Conn) {
		request(c)
		time.Sleep(50 * time.Millisecond) // a slow server
		_, _ = c.Write(wire.SwitchingProtocols)
	})
	c := newSet(t, s.addr, false, Options{})
	a := c.Connect(t.Context(), ConnectPlan{Users: list(20), Schedule: measure.Schedule{PerSecond: 200}})
	if a.Opened != 20 || a.Latency.Quantile(0) < 49*time.Millisecond || a.Took < (95+49)*time.Millisecond {
		t.Errorf("%d in %v, fastest %v", a.Opened, a.Took, a.Latency.Quantile(0))
	}
}

// Latency also includes delays of the load generator.
func TestConnectLatencyIncludesALateStart(t *testing.T) {
	s := newServer(t, func(c net.Conn) { request(c); _, _ = c.Write(wire.SwitchingProtocols) })
	c := newSet(t, s.addr, false, Options{})
	for _, shard := range c.shards {
		shard.loop.Do(func() { time.Sleep(100 * time.Millisecond) })
	}
	a := c.Connect(t.Context(), ConnectPlan{Users: list(20), Schedule: measure.Schedule{PerSecond: 1000}})
	if a.Opened != 20 || a.Latency.Quantile(0) < 70*time.Millisecond {
		t.Errorf("%d, fastest %v", a.Opened, a.Latency.Quantile(0))
	}
}

func TestCloseCodes(t *testing.T) {
	s := newServer(t, func(c net.Conn) {
		head := request(c)
		_, _ = c.Write(wire.SwitchingProtocols)
		switch {
		case strings.Contains(head, wire.UserID(0)):
			_, _ = c.Write([]byte{0x88, 2, 0x10, 0x06}) // 4102
		case strings.Contains(head, wire.UserID(1)):
			_, _ = c.Write([]byte{0xff, 0xff}) // not a frame
		}
		_ = c.Close()
	})
	c := newSet(t, s.addr, false, Options{})
	c.Connect(t.Context(), ConnectPlan{Users: list(3)})
	for until := time.Now().Add(5 * time.Second); c.Open() > 0 && time.Now().Before(until); {
		time.Sleep(time.Millisecond) // no event signals it
	}
	if e := c.CloseCodes(); e[4102] != 1 || e[abnormal] != 2 {
		t.Errorf("%v", e)
	}
}

func TestIdsAndOrder(t *testing.T) {
	frames := []string{
		`{"type":"hello","userId":"u","last":5,"read":0}`, `{"type":"notification","id":6,"prev":5,"ts":1,"message":{"id":99}}`,
		`{"type":"notification","ephemeral":true,"ts":1,"message":{"id":7}}`, `{"type":"notification","id":9,"prev":8,"ts":1,"message":1}`,
		`{"type":"gap","after":9,"next":11}`, "hi",
	}
	s := newServer(t, func(c net.Conn) {
		request(c)
		b := bytes.Clone(wire.SwitchingProtocols)
		for _, f := range frames {
			b = append(b, text(f)...)
		}
		_, _ = c.Write(b)
		request(c)
	})
	c := newSet(t, s.addr, true, Options{Ids: true})
	if a := c.Connect(t.Context(), ConnectPlan{Users: []int{4}}); a.Opened != 1 {
		t.Fatal(a.Err)
	}
	if got := c.LastIDs(); got[4] != 9 || c.Disorder() != 2 { // a jump, and a gap
		t.Errorf("last %v, %d out of order", got, c.Disorder())
	}
	c.Each((*Socket).Drop)
	if got := c.LastIDs(); got[4] != 9 || c.Open() != 0 {
		t.Errorf("after the drop: %v, %d open", got, c.Open())
	}
}

// A duplicate is not counted as received. A late message counts as disorder only
// while one connection publishes.
func TestDuplicatesAndOrder(t *testing.T) {
	send := make(chan []byte)
	s := newServer(t, func(c net.Conn) {
		request(c)
		_, _ = c.Write(wire.SwitchingProtocols)
		for b := range send {
			_, _ = c.Write(b)
		}
	})
	defer close(send)
	c := newSet(t, s.addr, false, Options{})
	c.Connect(t.Context(), ConnectPlan{Users: []int{0}})
	now := loop.Now()
	for i, number := range []uint32{1, 3, 2, 3, 4, 1} { // 2 is late; 3 and 1 are duplicates
		send <- stamped(now, number)
		if want := int64([]int{1, 2, 3, 3, 4, 4}[i]); c.AwaitReceived(t.Context(), want, 5*time.Second) != want {
			t.Fatalf("received %d after %d", c.Received(), i)
		}
	}
	for until := time.Now().Add(5 * time.Second); c.Duplicates() < 2 && time.Now().Before(until); {
		time.Sleep(time.Millisecond) // no event signals it
	}
	if c.Duplicates() != 2 || c.Disorder() != 0 {
		t.Errorf("%d duplicates, %d out of order", c.Duplicates(), c.Disorder())
	}
	stop := c.Sequential()
	now = loop.Now()
	for _, stamp := range [][]byte{stamped(now, 1), stamped(now+1, 0), stamped(now, 2)} {
		send <- stamp
	}
	c.AwaitReceived(t.Context(), 7, 5*time.Second)
	stop()
	send <- stamped(now, 0)
	c.AwaitReceived(t.Context(), 8, 5*time.Second)
	if c.Duplicates() != 2 || c.Disorder() != 1 {
		t.Errorf("%d duplicates, %d out of order", c.Duplicates(), c.Disorder())
	}
}

func TestPauseAndResume(t *testing.T) {
	send := make(chan struct{})
	s := newServer(t, func(c net.Conn) {
		request(c)
		_, _ = c.Write(wire.SwitchingProtocols)
		<-send
		_, _ = c.Write(stamped(0, 1))
		request(c)
	})
	c := newSet(t, s.addr, false, Options{ReceiveBuffer: 4096})
	c.Connect(t.Context(), ConnectPlan{Users: []int{0}})
	c.Each((*Socket).Pause)
	close(send)
	if got := c.AwaitReceived(t.Context(), 1, 50*time.Millisecond); got != 0 {
		t.Error("a paused socket reads")
	}
	c.Each((*Socket).Resume)
	if got := c.AwaitReceived(t.Context(), 1, 5*time.Second); got != 1 {
		t.Error("a resumed socket does not read")
	}
}

func TestSourceAddressesAreNotRepeated(t *testing.T) {
	seen := map[[4]byte]bool{}
	for range 300_000 {
		a := sourceAddress()
		if seen[a] || a[0] != 127 || a[1] == 0 || a[1] == 255 || a[3] == 0 || a[3] == 255 {
			t.Fatalf("%v", a)
		}
		seen[a] = true
	}
}

// BenchmarkReceive measures receiving a message, including the test's write to the
// other end of the connection.
func BenchmarkReceive(b *testing.B) {
	conns := make(chan net.Conn, 100)
	s := newServer(b, func(c net.Conn) {
		request(c)
		_, _ = c.Write(wire.SwitchingProtocols)
		conns <- c
	})
	c := newSet(b, s.addr, false, Options{})
	c.Connect(context.Background(), ConnectPlan{Users: list(100)})
	var to []net.Conn
	for range 100 {
		to = append(to, <-conns)
	}
	frame := stamped(0, 1)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := to[i%100].Write(frame); err != nil {
			b.Fatal(err)
		}
	}
}
