package e2e

import (
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"herald/internal/testing/gatewaytest"
)

// TestBadNeighboursCostNobodyAMessage: one of a user's sockets never reads, one crashes,
// and one is cut off repeatedly while large messages are published. The others miss
// nothing and do not wait.
func TestBadNeighboursCostNobodyAMessage(t *testing.T) {
	g, _ := node(t)
	const messages = 100
	good := []*socket{connectAs(t, g, "alice"), connectAs(t, g, "alice"), connectAs(t, g, "bob")}
	stalled, _ := connect(t, g, dialOptions{header: []string{bearer("alice")}, recvBuffer: 4096})
	crashing := connectAs(t, g, "alice")

	quit := make(chan struct{})
	var restless sync.WaitGroup
	restless.Go(func() { comeAndGo(t, g, quit) })

	body := `"` + strings.Repeat("x", 32<<10) + `"`
	var want [messages]int64
	for i := range messages {
		if i == messages/2 {
			crash(crashing)
		}
		began := time.Now()
		g.PublishBody(`{"userIds":["alice","bob"],"message":` + body + `}`)
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("publishing took %v", took)
		}
		for _, s := range good {
			m := s.expect(t, "notification")
			if string(m.Message) != body {
				t.Fatalf("message %d changed", i)
			}
			if s == good[0] {
				want[i] = m.ID
			} else if s == good[1] && m.ID != want[i] {
				t.Fatalf("message %d: ids %d and %d", i, m.ID, want[i])
			}
		}
	}
	close(quit)
	restless.Wait()
	checkTooSlow(t, g, stalled)
	for _, s := range good {
		if got := s.alive(t); len(got) > 0 {
			t.Errorf("too much: %s", rawOf(got))
		}
	}
	resumes(t, g, want[:])
}

// checkTooSlow: a client that does not read is closed with 4102, and a metric counts it.
func checkTooSlow(t *testing.T, g *gatewaytest.Gateway, stalled *socket) {
	t.Helper()
	eventually(t, "4102 is counted", func() bool {
		return g.Metric(`herald_connections_closed_total{code="4102"}`) >= 1
	})
	// It reads at last: the bye, if it was not lost, and the close.
	switch code := stalled.endCode(t, patience); code {
	case 4102, 0:
	default:
		t.Errorf("closed with %d, want 4102", code)
	}
}

// resumes reconnects as a client that was too slow does, and checks that nothing is
// missing.
func resumes(t *testing.T, g *gatewaytest.Gateway, want []int64) {
	t.Helper()
	s, _ := connect(t, g, dialOptions{path: "/ws?since=0", header: []string{bearer("alice")}})
	for i, id := range want {
		if m := s.expect(t, "notification"); m.ID != id {
			t.Fatalf("resumed notification %d has id %d, want %d", i, m.ID, id)
		}
	}
	s.alive(t)
}

// crash resets the connection, as a process that is killed with unread data does.
func crash(s *socket) {
	_ = s.conn.(*net.TCPConn).SetLinger(0)
	_ = s.conn.Close()
}

// comeAndGo connects as the same user and is cut off, repeatedly until quit.
func comeAndGo(t *testing.T, g *gatewaytest.Gateway, quit <-chan struct{}) {
	for {
		select {
		case <-quit:
			return
		default:
		}
		s, err := dial(g.Addr(), dialOptions{path: "/ws?since=0", header: []string{bearer("alice")}})
		if err != nil {
			t.Error(err)
			return
		}
		crash(s)
	}
}

// TestSlowReaderDelaysNoOther: while one socket's queue is full, another user's
// notifications arrive without delay.
func TestSlowReaderDelaysNoOther(t *testing.T) {
	g, _ := node(t)
	slow, _ := connect(t, g, dialOptions{header: []string{bearer("slow")}, recvBuffer: 4096})
	quick := connectAs(t, g, "quick")
	body := `"` + strings.Repeat("x", 60<<10) + `"`
	var worst time.Duration
	for range 40 {
		g.Publish("slow", body)
		began := time.Now()
		g.Publish("quick", "1")
		quick.expect(t, "notification")
		worst = max(worst, time.Since(began))
	}
	if worst > time.Second {
		t.Errorf("a notification took %v", worst)
	}
	checkTooSlow(t, g, slow)
}
