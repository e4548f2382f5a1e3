package deploy

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"herald/internal/testing/redistest"
)

// nginx is one nginx process tree that runs deploy/nginx.conf.
type nginx struct {
	Addr string // host:port on 127.0.0.1

	accessLog, errorLog string
}

// substitution replaces a text of nginx.conf that must occur exactly times times,
// so that the configuration under test cannot drift away from the shipped one.
type substitution struct {
	old, new string
	times    int
}

// startNginx runs nginx.conf in front of up to three gateways (host:port); those
// missing are marked as down. Only addresses and paths differ from what ships.
func startNginx(t *testing.T, gateways ...string) *nginx {
	t.Helper()
	program := redistest.Require(t, "nginx")
	port, err := redistest.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	n := &nginx{
		Addr:      net.JoinHostPort("127.0.0.1", strconv.Itoa(port)),
		accessLog: filepath.Join(dir, "access.log"),
		errorLog:  filepath.Join(dir, "error.log"),
	}
	conf := substitute(t, read(t, "../../deploy/nginx.conf"), n.substitutions(dir, gateways))
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	n.run(t, exec.Command(program, "-c", file, "-p", dir, "-g", "daemon off;"))
	return n
}

func (n *nginx) substitutions(dir string, gateways []string) []substitution {
	subs := []substitution{
		{"listen 8080;", "listen " + n.Addr + ";", 1},
		{"pid /run/nginx.pid;", "pid " + filepath.Join(dir, "pid") + ";", 1},
		{"access_log /var/log/nginx/access.log ", "access_log " + n.accessLog + " ", 1},
		{"error_log /var/log/nginx/error.log ", "error_log " + n.errorLog + " ", 2},
		{"\nhttp {\n", "\nhttp {\n" + tempPaths(dir), 1},
	}
	for i := range 3 {
		old := "server gateway" + strconv.Itoa(i+1) + ":3000 "
		if i < len(gateways) {
			subs = append(subs, substitution{old, "server " + gateways[i] + " ", 2})
		} else {
			subs = append(subs, substitution{old, "server 127.0.0.1:1 down ", 2})
		}
	}
	return subs
}

// tempPaths keeps nginx out of the system's folders.
func tempPaths(dir string) string {
	var b strings.Builder
	for _, name := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		b.WriteString(name + "_temp_path " + filepath.Join(dir, name) + ";\n")
	}
	return b.String()
}

func substitute(t *testing.T, conf string, subs []substitution) string {
	t.Helper()
	for _, s := range subs {
		if got := strings.Count(conf, s.old); got != s.times {
			t.Fatalf("nginx.conf has %q %d times, this test expects %d", s.old, got, s.times)
		}
		conf = strings.ReplaceAll(conf, s.old, s.new)
	}
	return conf
}

// run starts nginx and ends it, workers included, with the test.
func (n *nginx) run(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start nginx: %v", err)
	}
	exit := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exit) }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-exit
	})
	eventually(t, "nginx listens", func() bool {
		select {
		case <-exit:
			t.Fatalf("nginx ended while starting:\n%s", out.String())
		default:
		}
		c, err := net.Dial("tcp", n.Addr)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}

// AccessLog returns the log once it holds want, a fragment of an expected line:
// nginx writes a line when the request is over, after the client has its answer.
func (n *nginx) AccessLog(t *testing.T, want string) string {
	t.Helper()
	var log string
	eventually(t, "access log with "+want, func() bool {
		log = read(t, n.accessLog)
		return strings.Contains(log, want)
	})
	return log
}

func (n *nginx) URL() string { return "http://" + n.Addr }

// client returns an HTTP client whose connections come from ip, a loopback address.
func client(t *testing.T, ip string) *http.Client {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}, Timeout: 5 * time.Second}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, addr)
		},
		DisableKeepAlives: true,
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 30 * time.Second}
}

// answer is a response read to its end.
type answer struct {
	Status int
	Header http.Header
	Body   string
}

func do(t *testing.T, c *http.Client, method, url, body string, header http.Header) answer {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range header {
		req.Header[http.CanonicalHeaderKey(name)] = values
		if http.CanonicalHeaderKey(name) == "Host" {
			req.Host = values[0]
		}
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: read the answer: %v", method, url, err)
	}
	return answer{Status: resp.StatusCode, Header: resp.Header, Body: string(b)}
}

// eventually polls for an effect of another process that gives no event.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited 20 s for: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// record is a list that handlers on several connections append to.
type record[T any] struct {
	mu    sync.Mutex
	items []T // guarded by mu
}

func (r *record[T]) add(v T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.items = append(r.items, v)
}

func (r *record[T]) all() []T {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]T(nil), r.items...)
}
