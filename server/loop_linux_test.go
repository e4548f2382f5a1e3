package server

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"herald/hub"
	"herald/internal/transport"
	"herald/notify"
)

// pair is a TCP connection: a client's end, and a loop's.
func pair(t testing.TB, ls *loops) (*net.TCPConn, *loopConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if l, err = transport.Listen(l, prepare); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	c, err := ls.adopt(raw.(*transport.Accepted), 0)
	if err != nil {
		t.Fatal(err)
	}
	return client.(*net.TCPConn), c.(*loopConn)
}

func newTestLoops(t testing.TB) *loops {
	t.Helper()
	ls, err := newLoops(func(v any) { t.Errorf("panic: %v", v) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ls.stop)
	return ls
}

// messageReceiver cuts and parses what one client sends, as a stream does.
type messageReceiver struct {
	t     testing.TB
	ps    *parsers
	in    cutter
	got   [][]byte
	ended atomic.Int32
	done  chan struct{} // closed by end
}

func (r *messageReceiver) receive(p []byte) bool {
	p = append(r.in.rest, p...)
	for {
		kind, raw, left := r.in.cut(p)
		switch kind {
		case pieceNone:
			r.in.keep(left)
			return true
		case pieceMessage:
			_, data, err := r.ps.parse(raw, nil)
			if err != nil {
				r.t.Error(err)
				return false
			}
			r.got = append(r.got, data)
		case pieceClose:
			return false
		}
		p = left
	}
}

func (r *messageReceiver) end() {
	if r.ended.Add(1) == 1 {
		close(r.done)
	}
}

// Many clients at once, cut anywhere, must each be heard with their own words,
// and theirs only, though they share buffers, parsers and (one after another)
// descriptors.
func TestLoopsKeepClientsApart(t *testing.T) {
	const clients, generations, messages = 64, 4, 30
	ls, ps := newTestLoops(t), &parsers{}
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 7))
			for g := range generations {
				client, conn := pair(t, ls)
				recv := &messageReceiver{t: t, ps: ps, done: make(chan struct{})}
				if err := conn.start(recv); err != nil {
					t.Error(err)
					return
				}
				var want [][]byte
				var data []byte
				for m := range messages {
					text := bytes.Repeat([]byte{byte(i), byte(g), byte(m)}, r.IntN(notify.MaxClientFrame/3))
					want = append(want, text)
					half := r.IntN(len(text) + 1)
					data = append(data, clientFrame(opText, string(text[:half]))...)
					data = append(data, clientFrame(finBit|opPing, "p")...)
					data = append(data, clientFrame(finBit|opContinuation, string(text[half:]))...)
				}
				data = append(data, clientFrame(finBit|opClose, "")...)
				for _, segment := range cutAtRandom(r, data) {
					if _, err := client.Write(segment); err != nil {
						t.Error(err)
						return
					}
				}
				<-recv.done
				_ = client.Close()
				if n := len(recv.got); n != len(want) {
					t.Errorf("client %d: %d messages of %d", i, n, len(want))
					return
				}
				for m := range want {
					if !bytes.Equal(recv.got[m], want[m]) {
						t.Errorf("client %d got what is not its own", i)
						return
					}
				}
			}
		})
	}
	wg.Wait()
}

// A socket that a loop serves: what doesn't fit into the kernel's buffer is
// written when there is room, in order, and whoever ends the connection ends it once.
func TestLoopDrains(t *testing.T) {
	h := hub.New(hub.Options{QueueBytes: 8 << 20})
	t.Cleanup(h.Close)
	ls := newTestLoops(t)
	client, conn := pair(t, ls)
	sock := h.NewSocket("a", "", eventStream, conn)
	recv := &socketReceiver{h: h, sock: sock, done: make(chan struct{})}
	if err := conn.start(recv); err != nil {
		t.Fatal(err)
	}
	var want []byte
	for i := range 2000 {
		p := bytes.Repeat([]byte{byte(i)}, 3000)
		want = append(want, p...)
		sock.SendRaw(p)
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(client, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("what arrived is not what was sent: %v", err)
	}
	sock.End()
	<-recv.done
	sock.SendRaw([]byte("too late"))
	if _, err := client.Read(got); err != io.EOF {
		t.Errorf("after the end: %v", err)
	}
	_ = client.Close()
}

type socketReceiver struct {
	h    *hub.Hub
	sock *hub.Socket
	done chan struct{}
}

func (*socketReceiver) receive([]byte) bool { return true }

func (r *socketReceiver) end() {
	r.h.Leave(r.sock)
	close(r.done)
}

// A panic in one client's receiver ends that client only, and no descriptor is
// left over.
func TestLoopSurvivesPanics(t *testing.T) {
	var panics atomic.Int32
	ls, err := newLoops(func(any) { panics.Add(1) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ls.stop)
	before := openFiles(t)
	for range 20 {
		client, conn := pair(t, ls)
		r := panicReceiver{make(chan struct{})}
		if err := conn.start(r); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		<-r.done
		if _, err := client.Read(make([]byte, 1)); err != io.EOF {
			t.Fatalf("after the panic: %v", err)
		}
		_ = client.Close()
	}
	if n := panics.Load(); n != 20 {
		t.Errorf("%d panics were told of", n)
	}
	if after := openFiles(t); after > before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

type panicReceiver struct{ done chan struct{} }

func (panicReceiver) receive([]byte) bool { panic("on purpose") }
func (r panicReceiver) end()              { close(r.done) }

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// BenchmarkBridge is what a message costs that comes in over TCP, and one that
// goes out.
func BenchmarkBridge(b *testing.B) {
	h := hub.New(hub.Options{})
	b.Cleanup(h.Close)
	ls := newTestLoops(b)
	client, conn := pair(b, ls)
	b.Cleanup(func() { _ = client.Close() })
	s := &Server{Deps: Deps{Hub: h}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	b.Cleanup(s.cancel)
	ws := &webSocketStream{}
	ws.s, ws.sock = s, h.NewSocket("a", "", webSocket, conn)
	ws.greeted.Store(true)
	s.streams.enter()
	if err := conn.start(ws); err != nil {
		b.Fatal(err)
	}
	ping, answer := clientFrame(finBit|opText, `{"type":"ping"}`), make([]byte, 2+len(notify.PongFrame()))
	b.Run("ping and pong", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			ws.mu.Lock()
			ws.quota = quota{}
			ws.mu.Unlock()
			if _, err := client.Write(ping); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(client, answer); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("write", func(b *testing.B) { // and the client's read
		frame := textFrame(string(bytes.Repeat([]byte("x"), 300)))
		got := make([]byte, len(frame))
		b.ReportAllocs()
		for b.Loop() {
			ws.sock.SendRaw(frame)
			if _, err := io.ReadFull(client, got); err != nil {
				b.Fatal(err)
			}
		}
	})
}
