package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"herald/internal/testing/gatewaytest"
)

// conversation is a server's answer to bytes that need not be valid HTTP.
type conversation struct {
	answers []gatewaytest.Answer
	rest    []byte // what followed that was no answer
	open    bool   // the server has not closed the connection
}

// converse writes bytes to a new connection and reads answers until the server closes or
// is silent for quiet.
func converse(t testing.TB, g *gatewaytest.Gateway, request string) conversation {
	t.Helper()
	const quiet = 3 * time.Second
	conn, err := dialTCP(g.Addr(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	written := make(chan struct{})
	go func() { // the server may refuse and close before it has read everything
		defer close(written)
		_ = conn.SetWriteDeadline(time.Now().Add(patience))
		_, _ = io.WriteString(conn, request)
	}()
	var c conversation
	for br := bufio.NewReader(conn); ; {
		_ = conn.SetReadDeadline(time.Now().Add(quiet))
		a, err := readAnswer(br)
		if err != nil {
			c.open = isTimeout(err)
			c.rest, _ = br.Peek(br.Buffered())
			break
		}
		c.answers = append(c.answers, a)
	}
	_ = conn.Close()
	<-written
	return c
}

func readAnswer(br *bufio.Reader) (a gatewaytest.Answer, err error) {
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		return a, err
	}
	body, err := io.ReadAll(resp.Body)
	return gatewaytest.Answer{Status: resp.StatusCode, Header: resp.Header, Body: string(body)}, err
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// only returns the answer; there must be exactly one.
func (c conversation) only(t testing.TB) gatewaytest.Answer {
	t.Helper()
	if len(c.answers) != 1 || len(c.rest) > 0 {
		t.Fatalf("%d answers and %q, want one answer: %+v", len(c.answers), c.rest, c.answers)
	}
	return c.answers[0]
}

// TestRequestSmuggling: a request with ambiguous length is refused and its connection
// closed, so that the bytes behind it are never served as a request (RFC 9112, 6 and
// 11.2).
func TestRequestSmuggling(t *testing.T) {
	g, _ := node(t)
	victim := connectAs(t, g, "victim")
	const inner = `{"userId":"victim","message":"smuggled"}`
	smuggled := "POST /notify HTTP/1.1\r\nHost: x\r\n" + gatewaytest.BearerKey +
		"\r\nContent-Type: application/json\r\nContent-Length: 40\r\n\r\n" + inner
	const whole = `{"userId":"bob","message":1}` // 28 bytes
	chunked := "1c\r\n" + whole + "\r\n0\r\n\r\n"
	framings := map[string]string{
		"CL and TE":                   "Content-Length: 28\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked,
		"CL of nothing and TE":        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked,
		"TE and CL":                   "Transfer-Encoding: chunked\r\nContent-Length: 28\r\n\r\n" + chunked,
		"TE chunked and identity":     "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n" + chunked,
		"TE identity and CL":          "Transfer-Encoding: identity\r\nContent-Length: 28\r\n\r\n" + whole,
		"TE identity":                 "Transfer-Encoding: identity\r\n\r\n" + whole,
		"TE identity and no body":     "Transfer-Encoding: identity\r\n\r\n",
		"TE gzip, chunked":            "Transfer-Encoding: gzip, chunked\r\n\r\n" + chunked,
		"TE chunked, gzip":            "Transfer-Encoding: chunked, gzip\r\n\r\n" + chunked,
		"TE xchunked":                 "Transfer-Encoding: xchunked\r\n\r\n" + chunked,
		"TE with a tab":               "Transfer-Encoding:\tchunked\r\nContent-Length: 28\r\n\r\n" + chunked,
		"TE with a vertical tab":      "Transfer-Encoding: \x0bchunked\r\n\r\n" + chunked,
		"TE, space before the colon":  "Transfer-Encoding : chunked\r\nContent-Length: 28\r\n\r\n" + chunked,
		"two different CL":            "Content-Length: 28\r\nContent-Length: 0\r\n\r\n" + whole,
		"CL list of different values": "Content-Length: 28, 0\r\n\r\n" + whole,
		"CL with a sign":              "Content-Length: +28\r\n\r\n" + whole,
		"negative CL":                 "Content-Length: -1\r\n\r\n" + whole,
		"CL in hex":                   "Content-Length: 0x1c\r\n\r\n" + whole,
		"CL, space before the colon":  "Content-Length : 28\r\n\r\n" + whole,
		"CL that overflows":           "Content-Length: 18446744073709551644\r\n\r\n" + whole,
		"LF in a chunk extension":     "Transfer-Encoding: chunked\r\n\r\n1c;\n" + whole + "\r\n0\r\n\r\n",
		"chunk size with a sign":      "Transfer-Encoding: chunked\r\n\r\n+1c\r\n" + whole + "\r\n0\r\n\r\n",
		"chunk size with 0x":          "Transfer-Encoding: chunked\r\n\r\n0x1c\r\n" + whole + "\r\n0\r\n\r\n",
		"chunk size that overflows":   "Transfer-Encoding: chunked\r\n\r\n1000000000000001c\r\n" + whole + "\r\n0\r\n\r\n",
		"chunk longer than its size":  "Transfer-Encoding: chunked\r\n\r\n1b\r\n" + whole + "\r\n0\r\n\r\n",
		"no colon":                    "Content-Length 28\r\nX\r\n\r\n" + whole,
		"NUL in a header":             "X: a\x00b\r\nContent-Length: 28\r\n\r\n" + whole,
		"CR in a header":              "X: a\rContent-Length: 0\r\nContent-Length: 28\r\n\r\n" + whole,
	}
	head := "POST /notify HTTP/1.1\r\nHost: x\r\n" + gatewaytest.BearerKey + "\r\nContent-Type: application/json\r\n"
	t.Run("all", func(t *testing.T) {
		for name, framing := range framings {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				c := converse(t, g, head+framing+smuggled)
				if c.open {
					t.Errorf("the connection stays open after %+v", c.answers)
				}
				if len(c.answers) > 1 {
					t.Errorf("%d answers: %+v", len(c.answers), c.answers)
				}
				for _, a := range c.answers {
					if a.Status < 400 || a.Status == 500 {
						t.Errorf("answered %d %s", a.Status, a.Body)
					}
				}
			})
		}
	})
	// RFC 9112, 5.2 lets a folded line be unfolded, so Content-Length counts here.
	converse(t, g, head+"X: y\r\n Transfer-Encoding: chunked\r\nContent-Length: 28\r\n\r\n"+chunked+smuggled)
	if got := victim.alive(t); len(got) > 0 {
		t.Errorf("the smuggled request was executed: %s", rawOf(got))
	}
	if a := g.Backend("POST", "/notify", whole); a.Status != 200 {
		t.Errorf("afterwards: %d %s", a.Status, a.Body)
	}
}

func TestChunkedAndPipelinedRequestsAreServed(t *testing.T) {
	g, _ := node(t)
	head := "POST /notify HTTP/1.1\r\nHost: x\r\n" + gatewaytest.BearerKey + "\r\nContent-Type: application/json\r\n"
	chunked := head + "Transfer-Encoding: chunked\r\n\r\n1c;ext=1\r\n" + `{"userId":"bob","message":1}` + "\r\n0\r\n\r\n"
	last := "GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
	c := converse(t, g, chunked+chunked+last)
	if len(c.answers) != 3 || c.open {
		t.Fatalf("%d answers, open %v: %+v", len(c.answers), c.open, c.answers)
	}
	for _, a := range c.answers {
		if a.Status != 200 {
			t.Errorf("%d %s", a.Status, a.Body)
		}
	}
}

// TestErrorsRepeatNoSecrets sends credentials along with every kind of bad request.
func TestErrorsRepeatNoSecrets(t *testing.T) {
	g, _ := node(t)
	const secret = "s3cr3t-marker"
	creds := "Authorization: Bearer " + secret + "\r\nCookie: sid=" + secret + "\r\nX-Secret: " + secret + "\r\n"
	get := func(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: x\r\n" + creds }
	post := "POST /notify HTTP/1.1\r\nHost: x\r\n" + creds
	for name, request := range map[string]string{
		"bad credentials":      get("/ws") + "\r\n",
		"foreign Origin":       get("/ws") + "Origin: http://" + secret + "\r\n\r\n",
		"unknown path":         get("/"+secret) + "\r\n",
		"unknown method":       "BREW /notify HTTP/1.1\r\nHost: x\r\n" + creds + "\r\n",
		"wrong method":         get("/notify") + "\r\n",
		"bad key":              post + "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
		"bad handle":           "DELETE /sessions/" + secret + " HTTP/1.1\r\nHost: x\r\n" + creds + "\r\n",
		"malformed header":     get("/ws") + "no colon here\r\n\r\n",
		"space before a colon": get("/ws") + "X : y\r\n\r\n",
		"no host":              "GET /ws HTTP/1.1\r\n" + creds + "\r\n",
		"not HTTP":             secret + "\r\n\r\n",
		"bad version":          "GET /ws HTTP/9.9\r\nHost: x\r\n" + creds + "\r\n",
		"bad Content-Length":   post + "Content-Length: " + secret + "\r\n\r\n",
		"bad chunk":            post + "Transfer-Encoding: chunked\r\n\r\n" + secret + "\r\n",
		"body too large":       post + "Content-Type: application/json\r\nContent-Length: 2000000\r\n\r\n",
		"head too large":       get("/ws") + "X: " + strings.Repeat(secret, 10_000) + "\r\n\r\n",
		"URI too long":         get("/"+strings.Repeat(secret, 10_000)) + "\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := converse(t, g, request)
			if len(c.answers) == 0 {
				if c.open {
					t.Error("no answer, and the connection stays open")
				}
				return // closed without a word
			}
			a := c.answers[0]
			if strings.Contains(a.Body, "marker") || strings.Contains(headerText(a.Header), "marker") {
				t.Errorf("%d repeats the request: %v %s", a.Status, a.Header, a.Body)
			}
			if name == "bad version" && a.Status < 400 {
				return
			}
			checkProblem(t, a, a.Status)
			if a.Status < 400 {
				t.Errorf("answered %d", a.Status)
			}
		})
	}
	t.Cleanup(func() {
		if strings.Contains(g.Log(), "s3cr3t") {
			t.Errorf("the log repeats secrets:\n%s", g.Log())
		}
	})
}

func headerText(h http.Header) string {
	var b bytes.Buffer
	_ = h.Write(&b) // a buffer cannot fail
	return b.String()
}

// TestHalfRequestsHoldNobodyUp opens connections that never finish their request: others
// are served, and the gateway closes these.
func TestHalfRequestsHoldNobodyUp(t *testing.T) {
	t.Parallel()
	g, _ := node(t)
	const clients = 100
	var lorises sync.WaitGroup
	var held [clients]time.Duration
	for i := range clients {
		conn, err := dialTCP(g.Addr(), 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if _, err := io.WriteString(conn, "POST /notify HTTP/1.1\r\nHost: x\r\nX-A: "); err != nil {
			t.Fatal(err)
		}
		lorises.Go(func() { held[i] = drip(conn) })
	}
	for range 50 {
		began := time.Now()
		if a := g.Backend("POST", "/notify", `{"userId":"bob","message":1}`); a.Status != 200 {
			t.Fatalf("%d %s", a.Status, a.Body)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("a request took %v", took)
		}
	}
	lorises.Wait()
	for i, d := range held {
		if d > 20*time.Second {
			t.Errorf("half a request of client %d was kept for %v", i, d)
		}
	}
}

// drip sends a byte now and then until the server closes, and returns when.
func drip(conn net.Conn) time.Duration {
	began := time.Now()
	buf := make([]byte, 4096)
	for time.Since(began) < patience {
		_ = conn.SetDeadline(time.Now().Add(500 * time.Millisecond))
		if _, err := conn.Write([]byte("a")); err != nil {
			return time.Since(began)
		}
		for {
			_, err := conn.Read(buf)
			if isTimeout(err) {
				break
			}
			if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
				return time.Since(began)
			}
			if err != nil {
				return time.Since(began)
			}
		}
	}
	return time.Since(began)
}

func TestPathsAreExact(t *testing.T) {
	g, _ := node(t)
	for _, path := range []string{"/metrics", "/debug/pprof/", "/notify/", "/NOTIFY", "/Health", "/health/", "/ws/", "/nothing", "/../metrics", "/%6eotify"} {
		for _, method := range []string{"GET", "POST"} {
			a := g.Backend(method, path, "")
			if a.Status != 404 && a.Status != 405 && a.Status != 400 {
				t.Errorf("%s %s: %d", method, path, a.Status)
			} else {
				checkProblem(t, a, a.Status)
			}
		}
	}
	for path, allow := range map[string]string{"/notify": "POST", "/sessions": "POST", "/health": "GET, HEAD"} {
		a := g.Backend("PUT", path, "{}")
		checkProblem(t, a, http.StatusMethodNotAllowed)
		if got := a.Header.Get("Allow"); got != allow {
			t.Errorf("PUT %s: Allow %q, want %q", path, got, allow)
		}
	}
}
