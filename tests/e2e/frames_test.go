package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"herald/internal/testing/gatewaytest"
)

// closesWithin bounds how long a closed connection stays when the peer does not answer the
// close.
const closesWithin = 6 * time.Second

func TestHandshake(t *testing.T) {
	g, _ := node(t)
	t.Run("a frame in the segment of the request is answered", func(t *testing.T) {
		early := append(frame(fin|opText, []byte(`{"type":"ping"}`)), frame(fin|opPing, []byte("early"))...)
		s, _ := connect(t, g, dialOptions{header: []string{bearer("early")}, early: early})
		s.expect(t, "pong")
		s.alive(t)
		if s.pongs != 1 {
			t.Errorf("%d protocol pongs, want 1", s.pongs)
		}
	})
	t.Run("half a frame in the segment of the request", func(t *testing.T) {
		ping := frame(fin|opText, []byte(`{"type":"ping"}`))
		s, _ := connect(t, g, dialOptions{header: []string{bearer("half")}, early: ping[:7]})
		if err := s.write(ping[7:]); err != nil {
			t.Fatal(err)
		}
		s.expect(t, "pong")
	})
	t.Run("compression is declined", func(t *testing.T) {
		s, _ := connect(t, g, dialOptions{header: []string{
			bearer("zip"), "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x-webkit-deflate-frame",
		}})
		if ext := s.head.Header.Values("Sec-WebSocket-Extensions"); len(ext) > 0 {
			t.Errorf("extensions %q", ext)
		}
		s.alive(t)
		if err := s.send(fin|0x40|opText, []byte("\xaa\x56\x4a\xcc\x4b\x57\x02\x00")); err != nil {
			t.Fatal(err)
		}
		if code := s.endCode(t, patience); code != 1002 {
			t.Errorf("a compressed frame closed with %d, want 1002", code)
		}
	})
	t.Run("subprotocol", func(t *testing.T) {
		for offer, want := range map[string]string{"herald.v1": "herald.v1", "x, herald.v1": "herald.v1", "x": "", "": ""} {
			header := []string{bearer("sub")}
			if offer != "" {
				header = append(header, "Sec-WebSocket-Protocol: "+offer)
			}
			s, _ := connect(t, g, dialOptions{header: header})
			if got := s.head.Header.Get("Sec-WebSocket-Protocol"); got != want {
				t.Errorf("offer %q: selected %q, want %q", offer, got, want)
			}
		}
	})
	t.Run("not a handshake", func(t *testing.T) { refusesBadHandshakes(t, g) })
}

func refusesBadHandshakes(t *testing.T, g *gatewaytest.Gateway) {
	for name, change := range map[string]func(string) string{
		"version 8": func(h string) string { return strings.Replace(h, "Version: 13", "Version: 8", 1) },
		"no key":    func(h string) string { return strings.Replace(h, "Sec-WebSocket-Key", "X-Key", 1) },
		"short key": func(h string) string {
			return strings.Replace(h, "Sec-WebSocket-Key: ", "Sec-WebSocket-Key: AAAA\r\nX: ", 1)
		},
		"two keys": func(h string) string {
			return strings.Replace(h, "\r\n\r\n", "\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n", 1)
		},
		"POST":          func(h string) string { return strings.Replace(h, "GET", "POST", 1) },
		"HTTP/1.0":      func(h string) string { return strings.Replace(h, "HTTP/1.1", "HTTP/1.0", 1) },
		"HTTP/2":        func(h string) string { return strings.Replace(h, "Upgrade: websocket", "Upgrade: h2c", 1) },
		"no Connection": func(h string) string { return strings.Replace(h, "Connection: Upgrade", "Connection: keep-alive", 1) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := converse(t, g, change(string(handshake(g.Addr(), dialOptions{header: []string{bearer("bad")}})))).only(t)
			if checkProblem(t, a, a.Status); a.Status < 400 || a.Status >= 500 {
				t.Errorf("answered %d", a.Status)
			}
		})
	}
}

// TestFramesThatAreNotWebSocket: each invalid frame closes its own connection only, with
// the code of RFC 6455 where it defines one.
func TestFramesThatAreNotWebSocket(t *testing.T) {
	t.Parallel()
	g, _ := node(t, "HERALD_MAX_CONNECTIONS_PER_USER=100")
	bystander := connectAs(t, g, "bystander")
	huge := func(first byte, n uint64) []byte {
		return append(binary.BigEndian.AppendUint64([]byte{first, 0x80 | 127}, n), 1, 2, 3, 4)
	}
	join := func(frames ...[]byte) []byte { return bytes.Join(frames, nil) }
	part := bytes.Repeat([]byte("x"), 1500)
	const none = 0 // no close frame: RFC 6455 asks for the end only
	t.Run("all", func(t *testing.T) {
		for name, row := range map[string]struct {
			bytes []byte
			codes []int // any of them
		}{
			"2^62 bytes begun":                  {join(huge(fin|opText, 1<<62), make([]byte, 5000)), []int{1009}},
			"2^62 bytes announced":              {huge(fin|opText, 1<<62), []int{1009, none}},
			"2^62 bytes of binary announced":    {huge(fin|opBinary, 1<<62), []int{1003, 1009, none}},
			"2^62 bytes in a continuation":      {join(frame(opText, []byte("x")), huge(fin|opContinuation, 1<<62)), []int{1009, none}},
			"2^63 bytes announced":              {huge(fin|opText, 1<<63), []int{1002, 1009, none}},
			"a ping of 2^62 bytes":              {huge(fin|opPing, 1<<62), []int{1002}},
			"a message that is never finished":  {frame(opText, []byte("x")), []int{none, 4003, 1002}},
			"more than 4 KiB in fragments":      {join(frame(opText, part), frame(opContinuation, part), frame(fin|opContinuation, part)), []int{1009}},
			"unmasked":                          {[]byte("\x81\x0f{\"type\":\"ping\"}"), []int{1002, none}},
			"compressed, though declined":       {frame(fin|0x40|opText, []byte("x")), []int{1002}},
			"reserved bit":                      {frame(fin|0x10|opText, []byte("x")), []int{1002}},
			"reserved opcode":                   {frame(fin|0x3, []byte("x")), []int{1002}},
			"reserved control opcode":           {frame(fin|0xb, []byte("x")), []int{1002}},
			"a ping of 126 bytes":               {frame(fin|opPing, bytes.Repeat([]byte("x"), 126)), []int{1002}},
			"a ping in fragments":               {frame(opPing, []byte("x")), []int{1002}},
			"a continuation of nothing":         {frame(fin|opContinuation, []byte("x")), []int{1002}},
			"a message inside a message":        {join(frame(opText, []byte("x")), frame(fin|opText, []byte("x"))), []int{1002}},
			"a close of one byte":               {frame(fin|opClose, []byte{3}), []int{1002}},
			"a close with code 999":             {frame(fin|opClose, []byte{3, 231}), []int{1002}},
			"a close with code 1005":            {frame(fin|opClose, []byte{3, 237}), []int{1002}},
			"invalid UTF-8 split by a fragment": {join(frame(opText, []byte("\"\xe2\x82")), frame(fin|opContinuation, []byte("\""))), []int{1007}},
			"HTTP":                              {[]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), []int{1002, 1009}},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := connectAs(t, g, "frames")
				if err := s.write(row.bytes); err != nil {
					t.Fatal(err)
				}
				if code := s.endCode(t, 15*time.Second); !slices.Contains(row.codes, code) {
					t.Errorf("closed with %d, want one of %d", code, row.codes)
				}
				if took := s.gone(t); took > closesWithin {
					t.Errorf("the connection lingered for %v", took)
				}
			})
		}
	})
	bystander.alive(t)
}

// endCode skips messages until the connection closes and returns the close code; 0 without
// a close frame.
func (s *socket) endCode(t *testing.T, within time.Duration) int {
	t.Helper()
	for deadline := time.Now().Add(within); ; {
		_, err := s.nextWithin(time.Until(deadline))
		var end closed
		switch {
		case errors.As(err, &end):
			return end.code
		case err != nil:
			t.Errorf("not closed: %v", err)
			return -1
		}
	}
}

func TestFragmentsWithControlFramesBetween(t *testing.T) {
	g, _ := node(t)
	s := connectAs(t, g, "fragments")
	for _, p := range [][]byte{
		frame(opText, []byte(`{"type"`)), frame(fin|opPing, []byte("a")), frame(opContinuation, []byte(`:"pi`)),
		frame(opContinuation, nil), frame(fin|opPing, nil), frame(fin|opContinuation, []byte(`ng"}`)),
	} {
		for _, b := range p { // byte by byte
			if err := s.write([]byte{b}); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.expect(t, "pong")
	s.alive(t)
	if s.pongs != 2 {
		t.Errorf("%d protocol pongs, want 2", s.pongs)
	}
}

// TestFloods: a client that floods is closed for misuse, and others are served meanwhile.
func TestFloods(t *testing.T) {
	g, _ := node(t)
	for name, flood := range map[string][]byte{
		"pings":                 frame(fin|opPing, []byte("x")),
		"pongs":                 frame(fin|opPong, nil),
		"zero-length fragments": frame(opContinuation, nil),
		"good frames":           frame(fin|opText, []byte(`{"type":"ping"}`)),
		"frames of 4 KiB":       frame(fin|opText, []byte(`{"type":"ping","x":"`+strings.Repeat("x", 4000)+`"}`)),
	} {
		t.Run(name, func(t *testing.T) {
			bystander := connectAs(t, g, "bystander")
			s := connectAs(t, g, "flood")
			written := make(chan struct{})
			go func() { // ends when the gateway closes, or the test does
				defer close(written)
				if name == "zero-length fragments" {
					_ = s.write(frame(opText, nil))
				}
				for block := bytes.Repeat(flood, 1+4096/len(flood)); s.write(block) == nil; {
				}
			}()
			defer func() { _ = s.conn.Close(); <-written }()
			began := time.Now()
			bystander.alive(t)
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("a bystander's ping took %v", took)
			}
			code := s.endCode(t, 10*time.Second)
			// The close frame may be lost: TCP resets a connection that closes with unread
			// data.
			if code != 4003 && code != 0 {
				t.Errorf("closed with %d, want 4003", code)
			}
		})
	}
	if n := g.Metric(`herald_connections_closed_total{code="4003"}`); n < 5 {
		t.Errorf("%v connections were closed with 4003, want one for each flood", n)
	}
}

// TestPeersThatDoNotAnswerAClose: neither silence nor an endless frame keeps a closed
// connection open.
func TestPeersThatDoNotAnswerAClose(t *testing.T) {
	t.Parallel()
	g, _ := node(t)
	for name, answer := range map[string][]byte{
		"nothing":               nil,
		"a frame of 2^40 bytes": append(binary.BigEndian.AppendUint64([]byte{fin | opText, 0x80 | 127}, 1<<40), 1, 2, 3, 4),
		"half a close":          {fin | opClose, 0x80 | 2, 1},
		"a close of 2^40 bytes": append(binary.BigEndian.AppendUint64([]byte{fin | opClose, 0x80 | 127}, 1<<40), 1, 2, 3, 4),
		"pings":                 bytes.Repeat(frame(fin|opPing, []byte("still here")), 20),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := g.For(t)
			session := g.CreateSession("mute")
			s := connectWith(t, g, session)
			s.mute = true
			g.Backend("DELETE", "/sessions/"+session.Handle, "")
			s.expectClose(t, 4002)
			if err := s.write(answer); err != nil {
				t.Fatal(err)
			}
			if took := s.gone(t); took > closesWithin {
				t.Errorf("the connection lingered for %v", took)
			}
		})
	}
}

// TestVanishedPeersAreNoticed: the gateway closes a peer that answers no ping.
func TestVanishedPeersAreNoticed(t *testing.T) {
	t.Parallel()
	g, _ := node(t, "HERALD_PING=1s")
	silent := connectAs(t, g, "silent") // it stops reading, so it answers no ping
	talking := connectAs(t, g, "talking")
	began := time.Now()
	for g.Metric("herald_connections") == 2 {
		_ = talking.alive(t)
		if time.Since(began) > patience {
			t.Fatal("a silent peer is kept")
		}
		time.Sleep(100 * time.Millisecond)
	}
	if took := time.Since(began); took < 2*time.Second || took > 6*time.Second {
		t.Errorf("it took %v to notice, with a ping each second", took)
	}
	_ = silent.conn.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.Copy(io.Discard, silent.br); isTimeout(err) {
		t.Error("the silent connection is still open")
	}
	talking.alive(t)
}
