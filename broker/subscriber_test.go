package broker

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
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
		b := New(rdb, Options{Budget: patience, CanaryEvery: patience}) // a renewed subscription would lose messages
		events := make(chan string, 100*messages)
		subscribed := make(chan struct{}, 1)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		sub := subscriber(t, rdb.Options().Addr)
		go func() {
			defer close(done)
			b.Listen(ctx, sub, Handlers{
				Deliver:    func(user string, _ notify.Frame) { events <- strings.Clone(user) },
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

// script is a connection on which these have come, one for each Read.
type script struct {
	net.Conn
	parts [][]byte
}

func (s *script) Read(p []byte) (int, error) {
	if len(s.parts) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.parts[0])
	if s.parts[0] = s.parts[0][n:]; len(s.parts[0]) == 0 {
		s.parts = s.parts[1:]
	}
	return n, nil
}

// bulks is an array of strings as Redis sends it.
func bulks(texts ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(texts))
	for _, t := range texts {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(t), t)
	}
	return b.String()
}

// dealt is what becomes of what comes, in order: a message's channel and payload,
// or a reply that go-redis gets.
type dealt struct{ channel, payload, reply string }

// wire is how it came.
func (d dealt) wire() string {
	if d.channel == "" {
		return d.reply
	}
	return bulks("pmessage", channelPattern, d.channel, d.payload)
}

func message(user, payload string) dealt { return dealt{channel: channel(user), payload: payload} }
func reply(text string) dealt            { return dealt{reply: text} }

func wires(list []dealt) string {
	var b strings.Builder
	for _, d := range list {
		b.WriteString(d.wire())
	}
	return b.String()
}

// deal reads all of a stream that comes in pieces of size bytes, the buffer being
// small at first.
func deal(stream string, size int) (list []dealt, c *subscriberConn) {
	in := &script{}
	for rest := []byte(stream); len(rest) > 0; rest = rest[min(size, len(rest)):] {
		in.parts = append(in.parts, rest[:min(size, len(rest))])
	}
	s := &Subscriber{idle: func() {}}
	s.message = func(ch, payload string) {
		list = append(list, dealt{channel: strings.Clone(ch), payload: strings.Clone(payload)})
	}
	c = newSubscriberConn(in, s)
	c.buf = make([]byte, 64)
	for p := make([]byte, 1<<10); ; {
		n, err := c.Read(p)
		if err != nil {
			return list, c
		}
		list = append(list, reply(string(p[:n])))
	}
}

// TestMessagesAreTakenOut: go-redis gets everything but users' messages, in
// whatever pieces it comes, and nothing overtakes anything.
func TestMessagesAreTakenOut(t *testing.T) {
	want := []dealt{
		reply("+OK\r\n"),
		reply("*3\r\n$10\r\npsubscribe\r\n$13\r\nuser:*:events\r\n:1\r\n"),
		message("1", "a"),
		message("2", ""),
		reply("-NOPERM no\r\n"),
		reply(bulks("message", readChannel, message("not", "this").wire())),
		message("1", strings.Repeat("x", 300)),
		message("1", message("not", "this either").wire()),
		reply(bulks("pmessage", "user:*:eventz", "user:1:eventz", "x")),
		reply(bulks("pmessage", channelPattern+"z", "user:1:events", "x")),
		reply("*2\r\n*-1\r\n*2\r\n$-1\r\n:5\r\n"),
		reply("*0\r\n"),
		message("3", "z"),
	}
	stream := wires(want)
	for size := 1; size <= len(stream); size++ {
		if got, _ := deal(stream, size); !slices.Equal(got, want) {
			t.Fatalf("in pieces of %d bytes:\n%q\nwant\n%q", size, got, want)
		}
	}
}

// TestOddReplies: what is not understood is go-redis's, with all that follows.
func TestOddReplies(t *testing.T) {
	first, second := message("1", "a"), message("2", "b")
	for _, odd := range []string{
		"hello\r\n", ">2\r\n+a\r\n+b\r\n", "$x\r\n", "$+1\r\n", "$01\r\n", "$1\n\r\n", "$1\r\nab\r\n", "$-2\r\n", "$99999999999999\r\n", "*1\r\n?\r\n", "*\r\n",
		strings.Replace(first.wire(), "\r\n$1\r\n", "\r\n$-2\r\n", 1),
	} {
		for _, size := range []int{1, 7, 1000} {
			got, c := deal(first.wire()+odd+second.wire(), size)
			if got[0] != first || wires(got[1:]) != odd+second.wire() || c.r != c.w || slices.Contains(got, second) {
				t.Errorf("%q in pieces of %d bytes:\n%q", odd, size, got)
			}
		}
	}
}

// TestBufferShrinks: a message that is larger than the buffer leaves no larger one.
func TestBufferShrinks(t *testing.T) {
	want := []dealt{message("1", strings.Repeat("x", 3*readBuffer)), message("2", "y")}
	got, c := deal(wires(want), readBuffer/2)
	if !slices.Equal(got, want) {
		t.Errorf("%d messages", len(got))
	}
	if c.makeRoom(); len(c.buf) > readBuffer {
		t.Errorf("a buffer of %d bytes", len(c.buf))
	}
}

// FuzzSubscriberConn: whatever comes, in whatever pieces, is dealt with whole and in
// order, and in the same way.
func FuzzSubscriberConn(f *testing.F) {
	f.Add("+OK\r\n"+message("1", "a").wire()+bulks("pong", ""), byte(3))
	f.Add(message("1", "a").wire()+"*2\r\n$1\r\n", byte(200))
	f.Fuzz(func(t *testing.T, stream string, size byte) {
		got, c := deal(stream, int(size)+1)
		if again := wires(got) + string(c.buf[c.r:c.w]); again != stream {
			t.Fatalf("%q became %q", stream, again)
		}
		whole, _ := deal(stream, len(stream)+1)
		messages := func(list []dealt) []dealt {
			return slices.DeleteFunc(list, func(d dealt) bool { return d.channel == "" })
		}
		if got, whole := messages(got), messages(whole); !slices.Equal(got, whole) {
			t.Fatalf("%q in pieces: %q, whole: %q", stream, got, whole)
		}
	})
}

// BenchmarkReceive is what a message costs that nobody here wants: one of this
// program, and plain JSON of another one.
func BenchmarkReceive(b *testing.B) {
	text := `"` + strings.Repeat("x", 198) + `"`
	stored := notify.StoredHead + `1796051442104,"prev":1796051442103,"ts":1796051442104,"message":` + text + `}`
	if _, _, ok := notify.ParseStored(stored); !ok {
		b.Fatal(stored)
	}
	for name, payload := range map[string]string{"stored": stored, "foreign": text} {
		b.Run(name, func(b *testing.B) {
			r := &receiver{Broker: New(nil, Options{}), h: Handlers{Deliver: func(string, notify.Frame) {}}}
			s := &Subscriber{message: r.user, idle: func() {}}
			burst := []byte(strings.Repeat(message("42", payload).wire(), 1000))
			in := &script{}
			c := newSubscriberConn(in, s)
			p := make([]byte, 1<<10)
			b.ReportAllocs()
			b.ResetTimer()
			for i := 0; i < b.N; i += 1000 {
				in.parts = append(in.parts[:0], burst)
				for len(in.parts) > 0 {
					_, _ = c.Read(p)
				}
			}
		})
	}
}
