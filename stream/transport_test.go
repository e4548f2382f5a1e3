package stream

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"herald/hub"
	"herald/internal/transport"
	"herald/notify"
)

// pair returns both ends of a TCP connection: the client's, and the engine's.
func pair(t testing.TB, e *transport.Engine) (*net.TCPConn, transport.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if l, err = transport.Listen(l); err != nil {
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
	c, err := e.Adopt(raw, 0)
	if err != nil {
		t.Fatal(err)
	}
	return client.(*net.TCPConn), c
}

func newTestEngine(t testing.TB) *transport.Engine {
	t.Helper()
	e, err := transport.NewEngine(transport.Options{Panicked: func(v any) { t.Errorf("panic: %v", v) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Stop)
	return e
}

// messageReceiver splits and parses what one client sends, as a stream does.
type messageReceiver struct {
	t     testing.TB
	ps    *parsers
	in    splitter
	got   [][]byte
	ended atomic.Int32
	done  chan struct{} // closed by End
}

func (r *messageReceiver) Receive(p []byte) bool {
	p = append(r.in.rest, p...)
	for {
		kind, raw, left := r.in.next(p)
		switch kind {
		case pieceIncomplete:
			r.in.keep(left)
			return true
		case pieceMessage:
			_, data, err := r.ps.parse(raw)
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

func (r *messageReceiver) End() {
	if r.ended.Add(1) == 1 {
		close(r.done)
	}
}

// Clients share buffers, parsers and, one after another, descriptors. Each must be read
// with its own messages only, however TCP segments them.
func TestLoopsKeepClientsApart(t *testing.T) {
	const clients, generations, messages = 64, 4, 30
	e, ps := newTestEngine(t), &parsers{}
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 7))
			for g := range generations {
				client, conn := pair(t, e)
				recv := &messageReceiver{t: t, ps: ps, done: make(chan struct{})}
				if err := conn.Start(recv); err != nil {
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
				for _, segment := range segmentsOf(r, data) {
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
						t.Errorf("client %d: message %d is another client's", i, m)
						return
					}
				}
			}
		})
	}
	wg.Wait()
}

// What does not fit into the kernel's buffer is written in order as the client reads.
// The connection ends once.
func TestLoopDrains(t *testing.T) {
	h := hub.New(hub.Options{QueueBytes: 8 << 20})
	t.Cleanup(h.Close)
	e := newTestEngine(t)
	client, conn := pair(t, e)
	sock := h.NewSocket("a", "", eventStream, conn)
	recv := &socketReceiver{h: h, sock: sock, done: make(chan struct{})}
	if err := conn.Start(recv); err != nil {
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
		t.Fatalf("the client received other bytes than were sent: %v", err)
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

func (*socketReceiver) Receive([]byte) bool { return true }

func (r *socketReceiver) End() {
	r.h.Leave(r.sock)
	close(r.done)
}

// BenchmarkBridge measures a message from a client over TCP, and one to it.
func BenchmarkBridge(b *testing.B) {
	h := hub.New(hub.Options{})
	b.Cleanup(h.Close)
	e := newTestEngine(b)
	client, conn := pair(b, e)
	b.Cleanup(func() { _ = client.Close() })
	s := New(Deps{Hub: h}, Options{})
	b.Cleanup(s.cancel)
	ws := &webSocketStream{}
	ws.s, ws.sock = s, h.NewSocket("a", "", webSocket, conn)
	ws.helloSent.Store(true)
	s.open.add()
	if err := conn.Start(ws); err != nil {
		b.Fatal(err)
	}
	ping, answer := clientFrame(finBit|opText, `{"type":"ping"}`), make([]byte, 2+len(notify.PongFrame()))
	b.Run("ping and pong", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			ws.mu.Lock()
			ws.inbound = inbound{}
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
