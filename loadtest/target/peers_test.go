//go:build linux && compare

package target

import (
	"errors"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"herald/internal/testing/redistest"
	"herald/loadtest/clients"
	"herald/loadtest/loop"
	"herald/loadtest/measure"
	"herald/loadtest/wire"
)

// Every peer delivers each message to its user once, from the first message after the
// sockets are open.
func TestPeers(t *testing.T) {
	if testing.Short() {
		t.Skip("starts other servers")
	}
	redistest.Require(t, "redis-server")
	peers, err := NewPeers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range Kinds {
		if kind == Herald {
			continue
		}
		t.Run(string(kind), func(t *testing.T) {
			s, err := peers.Start(t.Context(), kind)
			if errors.Is(err, ErrMissing) && os.Getenv("REQUIRE_TOOLS") == "" {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if m, err := measure.MemoryOf(s.Processes.Server); err != nil || m.RSS < 1<<20 {
				t.Errorf("memory %+v, %v", m, err)
			}
			l := newLoop(t)
			const users = 30
			var got [users]atomic.Int64
			c, err := clients.New(s.Addr, s.Dialect, []*loop.Loop{l}, clients.Options{Delivered: func(sock *clients.Socket, _ wire.Stamp) { got[sock.User].Add(1) }})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			list := make([]int, users)
			for i := range list {
				list[i] = i
			}
			if a := c.Connect(t.Context(), clients.ConnectPlan{Users: list}); a.Opened != users {
				t.Fatalf("%d open: %v", a.Opened, a.Err)
			}
			_ = Sleep(t.Context(), s.ReadyDelay())
			caller, err := clients.NewCaller(newLoop(t), s.Addr, 8)
			if err != nil {
				t.Fatal(err)
			}
			defer caller.Close()
			request := wire.NewTemplate(s.Notify(s.Addr, wire.Message(200)))
			a := caller.Do(t.Context(), clients.Work{Count: 2 * users, Request: func(dst []byte, i int, due time.Duration) []byte {
				return request.Append(dst, i%users, wire.Stamp{Due: due, Number: uint32(i)})
			}})
			if a.OK != 2*users {
				t.Fatalf("%+v", a)
			}
			c.AwaitReceived(t.Context(), 2*users, 5*time.Second)
			for user := range got {
				if n := got[user].Load(); n != 2 {
					t.Errorf("user %d got %d messages", user, n)
				}
			}
			if e := c.CloseCodes(); len(e) > 0 {
				t.Errorf("endings %v", e)
			}
		})
	}
}
