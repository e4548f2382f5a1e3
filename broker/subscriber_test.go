package broker

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"herald/notify"
)

// TestIdle: Idle is called after what was delivered, and does not wait for
// something further to come.
func TestIdle(t *testing.T) {
	onBoth(t, func(t *testing.T, rdb *redis.Client) {
		const messages, size = 5000, 1000
		b := New(rdb, Options{Budget: patience})
		events := make(chan string, 100*messages)
		subscribed := make(chan struct{}, 1)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		sub := subscriber(t, rdb.Options().Addr)
		go func() {
			defer close(done)
			b.Listen(ctx, sub, Handlers{
				Deliver:    func(user string, _ notify.Message) { events <- user },
				Idle:       func() { events <- "idle" },
				Subscribed: func() { subscribed <- struct{}{} },
			})
		}()
		defer func() { cancel(); <-done }()
		<-subscribed
		text := `"` + strings.Repeat("x", size) + `"`
		if _, err := rdb.Pipelined(t.Context(), func(p redis.Pipeliner) error {
			for i := range messages {
				p.Publish(t.Context(), channel(fmt.Sprint(i)), text)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		heard, last := 0, "idle"
		for heard < messages || last != "idle" {
			if last = <-events; last == "idle" {
				continue
			}
			if last != fmt.Sprint(heard) {
				t.Fatalf("message %d is for %s", heard, last)
			}
			heard++
		}
	})
}

// burst is a connection on which so much has come.
type burst struct {
	net.Conn
	left  int
	reads int
}

func (b *burst) Read(p []byte) (int, error) {
	n := min(len(p), b.left)
	if n == 0 {
		return 0, io.EOF
	}
	b.reads++
	b.left -= n
	return n, nil
}

// TestReadsAll: what has come is read at once, however little is asked for, and
// idle is called only before the next read.
func TestReadsAll(t *testing.T) {
	idle := 0
	b := &burst{left: readBuffer + 10}
	c := newSubscriberConn(b, &Subscriber{idle: func() { idle++ }})
	total := 0
	for p := make([]byte, 32<<10); ; {
		n, err := c.Read(p)
		if err != nil {
			break
		}
		if total += n; total <= readBuffer && (b.reads != 1 || idle != 1) {
			t.Fatalf("after %d bytes: %d reads, idle %d times", total, b.reads, idle)
		}
	}
	if total != readBuffer+10 || b.reads != 2 || idle != 3 {
		t.Errorf("%d bytes, %d reads, idle %d times", total, b.reads, idle)
	}
}
