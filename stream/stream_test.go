package stream

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"herald/auth"
	"herald/hub"
	"herald/internal/transport"
	"herald/notify"
	"herald/sessions"
)

// inBubble runs a test on its own clock.
func inBubble(t *testing.T, test func(t *testing.T, n *node)) {
	synctest.Test(t, func(t *testing.T) { test(t, newNode(t)) })
}

func TestAResumingClientGetsEveryNotificationOnceAndInOrder(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		n.publishMany(3)
		n.onRead = n.publish // 4 is announced after the log was read, and before the socket is live
		c := n.connect(Admission{Resume: 1, Resuming: true})
		c.expect("hello 3", "2", "3", "4")
		n.publish()
		c.expect("5")
	})
}

func TestAResumeThroughManyPagesKeepsTheOrder(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		n.publishMany(1201) // three pages
		n.onRead = n.publish
		c := n.connect(Admission{Resuming: true})
		c.expect("hello 1201")
		for id := range 1202 {
			c.expect(fmt.Sprint(id + 1))
		}
		n.publish()
		c.expect("1203")
	})
}

func TestAGapFrameTellsWhatTheLogHasLost(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		n.publishMany(5)
		n.set(func() { n.entries = n.entries[3:] })
		n.connect(Admission{Resume: 1, Resuming: true}).expect("hello 5", "gap 1 4", "4", "5")
		n.connect(Admission{Resume: 9, Resuming: true}).expect("hello 5", "gap 9 0")
		n.set(func() { n.entries = nil })
		n.connect(Admission{Resume: 4, Resuming: true}).expect("hello 5", "gap 4 0")
	})
}

func TestClientFramesWaitForHello(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		n.set(func() { n.down = true })
		conn, end := newPipe()
		c := &client{t: t, conn: end}
		defer end.Close()
		early := clientFrame(finBit|opText, `{"type":"ping"}`)
		if err := n.streams.OpenWebSocket(conn, nil, early, Admission{UserID: "42"}); err != nil {
			t.Fatal(err)
		}
		c.send(`{"type":"read","upTo":1}`)
		time.Sleep(20 * time.Second) // no ping yet
		conn.mu.Lock()
		sent := len(conn.buf)
		conn.mu.Unlock()
		if sent > 0 {
			t.Errorf("%d bytes before hello", sent)
		}
		n.set(func() { n.down = false })
		c.readFrom(end)
		c.expect("hello 0", "pong", "read")
	})
}

func TestTooManyBytesBeforeHelloCloseWith4003(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		n.set(func() { n.down = true })
		conn, end := newPipe()
		c := &client{t: t, conn: end}
		defer end.Close()
		if err := n.streams.OpenWebSocket(conn, nil, nil, Admission{UserID: "42"}); err != nil {
			t.Fatal(err)
		}
		c.write(bytes.Repeat(clientFrame(finBit|opText, `{"type":"ping"}`), maxEarly/20))
		c.readFrom(end)
		c.expect("bye 4003", "close 4003")
		n.set(func() { n.down = false })
	})
}

func TestADrainSaysGoodbyeAndRefusesJoins(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		c := n.connect(Admission{})
		c.expect("hello 0")
		drained := make(chan struct{})
		go func() { n.hub.Drain(context.Background(), 10*time.Second); close(drained) }()
		c.expect("bye 4101", "close 4101")
		c.write(clientFrame(finBit|opClose, "\x10\x05"))
		c.expect("end")
		<-drained
		n.connect(Admission{}).expect("bye 4101", "close 4101", "end")
	})
}

func TestTenInvalidFramesCloseWith4003(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		c := n.connect(Admission{})
		c.expect("hello 0")
		for range maxInvalid {
			c.send("?")
		}
		c.expect(repeat("error", maxInvalid)...)
		c.expect("bye 4003", "close 4003", "end")
	})
}

func TestATokenExtendsTheConnectionOfItsUser(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		start := time.Now()
		n.tokens["fresh"] = auth.Principal{UserID: "42", Expires: start.Add(40 * time.Second)}
		n.tokens["another"] = auth.Principal{UserID: "43", Expires: start.Add(time.Hour)}
		c := n.connect(Admission{Expires: start.Add(20 * time.Second)})
		c.expect("hello 0")
		c.send(`{"type":"token","token":"another"}`)
		c.expect("error")
		c.send(`{"type":"token","token":"fresh"}`)
		time.Sleep(22 * time.Second)
		c.send(`{"type":"ping"}`)
		c.expect("pong")
		for {
			if got := c.next(); got != "opcode 9" { // our ping
				if got != "bye 4001" {
					t.Fatalf("got %s, want bye 4001", got)
				}
				break
			}
		}
		if lived := time.Since(start); lived < 40*time.Second || lived > 42*time.Second {
			t.Errorf("closed after %v, want 40 s", lived)
		}
	})
}

func TestATokenDoesNotExtendTheConnectionOfASession(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		n.tokens["fresh"] = auth.Principal{UserID: "42", Expires: time.Now().Add(time.Hour)}
		n.sessions["handle"] = time.Now().Add(time.Hour)
		c := n.connect(Admission{Session: "handle", Expires: time.Now().Add(time.Hour)})
		c.expect("hello 0")
		c.send(`{"type":"token","token":"fresh"}`)
		c.expect("error")
	})
}

func TestAPolledSessionThatEndsClosesWith4002(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		n.sessions["handle"] = time.Now().Add(time.Hour)
		c := n.connect(Admission{Session: "handle", Expires: time.Now().Add(time.Hour)})
		c.expect("hello 0")
		synctest.Wait() // the check at the join has found the session
		n.set(func() { delete(n.sessions, "handle") })
		c.expect("opcode 9", "bye 4002", "close 4002") // a ping at 25 s, the check at 30 s
	})
}

func TestAMessageMustBeCompleteWithinTenSeconds(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		c := n.connect(Admission{})
		c.expect("hello 0")
		ping := clientFrame(finBit|opText, `{"type":"ping"}`)
		c.write(ping[:5])
		time.Sleep(messageTimeout - time.Second)
		c.write(ping[5:])
		c.expect("pong")
		start := time.Now()
		for _, b := range ping[:5] { // slowly, but never silent
			c.write([]byte{b})
			time.Sleep(time.Second)
		}
		c.expect("end")
		if took := time.Since(start); took < messageTimeout || took > messageTimeout+2*time.Second {
			t.Errorf("closed after %v, want %v", took, messageTimeout)
		}
	})
}

func TestACloseFrameIsAnsweredAndEndsTheConnection(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		for payload, want := range map[string][]string{
			"\x0f\xa0goodbye": {"close 4000", "end"},
			"\x03\xe7":        {"bye 1002", "close 1002", "end"},
			"\x03\xe8\xff":    {"bye 1007", "close 1007", "end"},
		} {
			c := n.connect(Admission{})
			c.expect("hello 0")
			c.write(clientFrame(opText, "half a mess"))
			c.write(clientFrame(finBit|opClose, payload))
			c.expect(want...)
		}
	})
}

func TestAnEventStreamHasABudgetForWhatTheClientSends(t *testing.T) {
	inBubble(t, func(t *testing.T, n *node) {
		c := n.open(n.streams.OpenEvents, Admission{})
		c.write(make([]byte, inboundBurst))
		time.Sleep(time.Second)
		c.write(make([]byte, inboundRate))
		if sockets, _ := n.hub.Count(); sockets != 1 {
			t.Fatal("closed within the budget")
		}
		go func() { _, _ = c.conn.Write(make([]byte, 1024)) }()     // too much
		_ = c.conn.SetReadDeadline(time.Now().Add(5 * time.Second)) // before the first heartbeat
		all, err := io.ReadAll(c.r)
		if text := string(all); err != nil || !strings.Contains(text, "event: bye\ndata: ") || !strings.Contains(text, `"code":4003`) {
			t.Errorf("%q, %v; want a bye frame with 4003", text, err)
		}
	})
}

// noConn is a connection that takes everything.
type noConn struct{ transport.Conn }

func (noConn) Write(p []byte) (int, error) { return len(p), nil }
func (noConn) Close()                      {}

// A mass disconnect must not build a library connection for each close frame.
func TestCloseAndInvalidFramesBuildNoLibraryConnection(t *testing.T) {
	h := hub.New(hub.Options{})
	defer h.Close()
	s := New(Deps{Hub: h}, Options{})
	defer s.cancel()
	for name, data := range map[string][]byte{
		"close":                     clientFrame(finBit|opClose, "\x03\xe8"),
		"a fragment, then a close":  append(clientFrame(opText, "x"), clientFrame(finBit|opClose, "\x03\xe8")...),
		"reserved bit":              clientFrame(finBit|0x40|opText, "x"),
		"continuation of nothing":   clientFrame(finBit|opContinuation, "x"),
		"text inside a message":     append(clientFrame(opText, "x"), clientFrame(finBit|opText, "y")...),
		"a message over the limit":  clientFrame(finBit|opText, strings.Repeat("x", notify.MaxClientFrame+1)),
		"a close with half a code ": clientFrame(finBit|opClose, "\x03"),
	} {
		const runs = 50
		streams := make([]*webSocketStream, runs+1) // AllocsPerRun warms up once
		for i := range streams {
			streams[i] = &webSocketStream{}
			streams[i].s, streams[i].sock = s, h.NewSocket("42", "", webSocket, noConn{})
			streams[i].helloSent.Store(true)
		}
		i := 0
		allocs := testing.AllocsPerRun(runs, func() {
			streams[i].Receive(data)
			i++
		})
		if allocs > 8 || len(s.parsers.idle) > 0 {
			t.Errorf("%s: %v allocations, %d library connections", name, allocs, len(s.parsers.idle))
		}
		for _, st := range streams {
			st.sock.End()
		}
	}
}

var (
	_ PolledSessions = (*node)(nil)
	_ Sessions       = (*sessions.Store)(nil)
)
