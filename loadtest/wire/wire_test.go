package wire

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestMessageIsJSONOfTheGivenSize(t *testing.T) {
	for _, size := range []int{MinMessage, MinMessage + 1, 200, 4096} {
		m := Message(size)
		if len(m) != size || !json.Valid(m) {
			t.Errorf("%d: %d bytes, %s", size, len(m), m)
		}
		if s, ok := FindStamp(m); !ok || s != (Stamp{}) {
			t.Errorf("%d: its placeholder reads as %v, %t", size, s, ok)
		}
	}
}

func TestTemplate(t *testing.T) {
	tmpl := NewTemplate([]byte(`{"to":"` + AnyUser + `","m":` + string(Message(120)) + `,"again":"` + AnyUser + `"}`))
	for _, want := range []Stamp{{Due: 1, Number: 1}, {Due: 90 * time.Hour, Number: 1<<32 - 1}, {}} {
		b := tmpl.Append([]byte("head "), 4711, want)
		if got, ok := FindStamp(b); !ok || got != want {
			t.Errorf("stamp %v, %t, want %v", got, ok, want)
		}
		if bytes.Count(b, []byte(UserID(4711))) != 2 || bytes.Contains(b, []byte(AnyUser)) || !bytes.HasPrefix(b, []byte("head {")) {
			t.Errorf("got %s", b)
		}
	}
	b := make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(100, func() { b = tmpl.Append(b[:0], 99, Stamp{Due: 7}) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestUserIDsHaveOneWidth(t *testing.T) {
	for i, want := range map[int]string{0: "u000000", 42: "u000042", 999_999: "u999999"} {
		if got := UserID(i); got != want || len(got) != len(AnyUser) {
			t.Errorf("%d: %q", i, got)
		}
	}
}

func TestFindStampRefuses(t *testing.T) {
	for _, text := range []string{"", "@@", "@@123", "no mark", "@@" + strings.Repeat("g", 24), "@@" + strings.Repeat("0", 23)} {
		if s, ok := FindStamp([]byte(text)); ok {
			t.Errorf("%q: %v", text, s)
		}
	}
}

func TestParseResponse(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\ncontent-LENGTH: 5\r\n\r\nhello"
	for _, c := range []struct {
		in     string
		status int
		body   string
		n      int
	}{
		{ok, 200, "hello", len(ok)},
		{ok + "HTTP/1.1 500", 200, "hello", len(ok)},
		{ok[:len(ok)-1], 0, "", 0},
		{"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x01a", 101, "", 56},
		{"HTTP/1.1 204 No Content\r\n\r\n", 204, "", 27},
		{"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n", 429, "", 53},
		{"HTTP/1.1 200", 0, "", 0},
	} {
		r, n, err := ParseResponse([]byte(c.in))
		if err != nil || n != c.n || r.Status != c.status || string(r.Body) != c.body {
			t.Errorf("%q: %d %q, %d bytes, %v", c.in, r.Status, r.Body, n, err)
		}
	}
}

func TestParseResponseRefuses(t *testing.T) {
	for _, in := range []string{
		"SPDY/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 2x0 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "\r\n\r\n", strings.Repeat("x", maxHead+1),
	} {
		if r, n, err := ParseResponse([]byte(in)); !errors.Is(err, ErrResponse) {
			t.Errorf("%.40q: %d, %d, %v", in, r.Status, n, err)
		}
	}
}

// FuzzParseResponse checks that net/http parses an accepted response the same way, if
// net/http accepts it and every line ends in CRLF.
func FuzzParseResponse(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"))
	f.Add([]byte("HTTP/1.0 404 Not Found\r\nX: y\r\ncontent-length:1\r\n\r\na"))
	f.Add([]byte("HTTP/1.1 101 \r\n\r\n\x81\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, n, err := ParseResponse(b)
		if err != nil || n == 0 {
			return
		}
		if n > len(b) || len(r.Body) > n {
			t.Fatalf("%d of %d bytes, body of %d", n, len(b), len(r.Body))
		}
		if bytes.Count(r.Head, []byte("\n")) != bytes.Count(r.Head, []byte("\r\n")) || bytes.Count(r.Head, []byte("\r")) != bytes.Count(r.Head, []byte("\r\n")) {
			return
		}
		std, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b)), nil)
		if err != nil || std.TransferEncoding != nil || len(std.Header["Content-Length"]) > 1 {
			return
		}
		defer func() { _ = std.Body.Close() }()
		body, err := io.ReadAll(std.Body)
		if r.Status >= 200 && err == nil && (std.StatusCode != r.Status || !bytes.Equal(body, r.Body)) {
			t.Fatalf("%q: %d %q, net/http: %d %q", b, r.Status, r.Body, std.StatusCode, body)
		}
	})
}

func TestUpgradedAcceptsOnlyTheRightAnswer(t *testing.T) {
	r, n, err := ParseResponse(SwitchingProtocols)
	if err != nil || n != len(SwitchingProtocols) {
		t.Fatal(n, err)
	}
	if err := Upgraded(r); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{
		"HTTP/1.1 101 X\r\nSec-WebSocket-Accept: no\r\n\r\n", "HTTP/1.1 101 X\r\n\r\n",
		"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno",
	} {
		r, _, err := ParseResponse([]byte(bad))
		if err != nil {
			t.Fatal(err)
		}
		if err := Upgraded(r); err == nil {
			t.Errorf("%q passes", bad)
		}
	}
}

// net/http parses the requests as intended.
func TestRequests(t *testing.T) {
	for _, b := range [][]byte{Upgrade("h:1", "/ws?since=3", "Cookie: sid=x"), Post("h:1", "/notify", []byte(`{"a":1}`), "Content-Type: application/json")} {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b)))
		if err != nil {
			t.Fatalf("%q: %v", b, err)
		}
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Host != "h:1" {
			t.Errorf("%q: host %q, %v", b, r.Host, err)
		}
		if r.Method == http.MethodPost && (string(body) != `{"a":1}` || r.Header.Get("Content-Type") != "application/json") {
			t.Errorf("%q: body %q", b, body)
		}
		if r.Method == http.MethodGet && (r.URL.Query().Get("since") != "3" || r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Cookie") != "sid=x") {
			t.Errorf("%q", b)
		}
	}
}

func TestRedisCommands(t *testing.T) {
	want := "*3\r\n$7\r\nPUBLISH\r\n$2\r\nch\r\n$3\r\na\r\n\r\n"
	if got := string(Publish("ch", []byte("a\r\n"))); got != want {
		t.Errorf("got %q", got)
	}
	for in, want := range map[string][2]int{"": {0, 0}, ":1\r\n": {1, 4}, ":1\r\n:0\r\n:2": {2, 8}} {
		replies, n, err := CountIntegers([]byte(in))
		if err != nil || replies != want[0] || n != want[1] {
			t.Errorf("%q: %d replies, %d bytes, %v", in, replies, n, err)
		}
	}
	if _, _, err := CountIntegers([]byte(":1\r\n-OOM no\r\n")); !errors.Is(err, ErrRedis) {
		t.Errorf("an error of Redis: %v", err)
	}
}
