//go:build linux

package target

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"herald/loadtest/clients"
	"herald/loadtest/loop"
	"herald/loadtest/measure"
	"herald/loadtest/wire"
)

// The test binary is also the child process of its tests.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "raw-write" {
		n, _ := strconv.Atoi(os.Args[2])
		if err := RawWriter(n, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func TestConnect(t *testing.T) {
	s, err := Connect(Existing{URL: "http://127.0.0.1:3000", RedisURL: "redis://127.0.0.1:6379/", AdminURL: "http://127.0.0.1:3001/", PID: os.Getpid(), RedisPID: 7, Key: "k"})
	if err != nil {
		t.Fatal(err)
	}
	if s.Addr != "127.0.0.1:3000" || s.Redis != "127.0.0.1:6379" || s.Admin != "http://127.0.0.1:3001" || len(s.Processes.Server) == 0 || s.Processes.Redis[0] != 7 {
		t.Errorf("%+v", s)
	}
	for _, bad := range []Existing{
		{URL: "127.0.0.1:3000"}, {URL: "http://127.0.0.1"}, {URL: "https://127.0.0.1:3000"}, {URL: "http://127.0.0.1:3000/x"}, {},
		{URL: "http://127.0.0.1:3000", RedisURL: "http://127.0.0.1:6379"},
	} {
		if _, err := Connect(bad); err == nil {
			t.Errorf("%+v passes", bad)
		}
	}
}

// In every dialect the publish request and the upgrade contain the user, or the session.
func TestDialects(t *testing.T) {
	for _, kind := range Kinds {
		d, err := kind.dialect("secret-key")
		if err != nil {
			t.Fatal(err)
		}
		if h, ok := d.(*herald); ok {
			h.sessions = []string{"", "the-session"}
		}
		request := wire.NewTemplate(d.Notify("h:1", wire.Message(100))).Append(nil, 1, wire.Stamp{Due: 3, Number: 4})
		if stamp, ok := wire.FindStamp(request); !ok || stamp.Number != 4 || !bytes.Contains(request, []byte(wire.UserID(1))) {
			t.Errorf("%s: %s", kind, request)
		}
		upgrade := string(d.Upgrade("h:1", 1, 17))
		if !strings.Contains(upgrade, wire.UserID(1)) && !strings.Contains(upgrade, "the-session") {
			t.Errorf("%s: %s", kind, upgrade)
		}
		if kind.About() == "" {
			t.Errorf("no description of %s", kind)
		}
	}
	h := &herald{sessions: []string{"s"}}
	if !strings.Contains(string(h.Upgrade("h:1", 0, 17)), "since=17") || strings.Contains(string(h.Upgrade("h:1", 0, -1)), "since") {
		t.Error("since")
	}
}

func TestFramesThatOpen(t *testing.T) {
	for _, c := range []struct {
		d      Dialect
		frame  string
		answer string
		open   bool
	}{
		{&herald{}, `{"type":"hello","userId":"u"}`, "", true}, {&herald{}, `{"type":"pong"}`, "", false}, {&herald{}, `{"type":"bye"}`, "", false},
		{socketIO{}, `0{"sid":"x"}`, "40", false}, {socketIO{}, `40{"sid":"x"}`, "", true}, {socketIO{}, "2", "3", false}, {socketIO{}, `42["x"]`, "", false},
	} {
		if answer, open := c.d.Frame([]byte(c.frame)); string(answer) != c.answer || open != c.open {
			t.Errorf("%T %s: %q, %t", c.d, c.frame, answer, open)
		}
	}
}

func TestAnExitIsReportedWithItsReason(t *testing.T) {
	p, err := start("it", processOptions{}, "sh", "-c", "echo one; echo because >&2; exit 3")
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop()
	if line, err := p.line(t.Context(), patience); err != nil || line != "one" {
		t.Errorf("%q, %v", line, err)
	}
	_, err = p.line(t.Context(), patience)
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "because") {
		t.Errorf("line: %v", err)
	}
	if err := p.await(t.Context(), func() bool { return false }); err == nil || !strings.Contains(err.Error(), "because") {
		t.Errorf("await: %v", err)
	}
}

func TestStopEndsTheWholeGroup(t *testing.T) {
	p, err := start("it", processOptions{}, "sh", "-c", "sleep 1000 & echo $!; wait")
	if err != nil {
		t.Fatal(err)
	}
	line, err := p.line(t.Context(), patience)
	if err != nil {
		t.Fatal(err)
	}
	p.stop()
	p.stop() // has no effect
	for until := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		b, err := os.ReadFile(filepath.Join("/proc", line, "stat"))
		if err != nil || bytes.Contains(b, []byte(") Z ")) {
			return
		}
		if time.Now().After(until) {
			t.Fatal("a child still runs")
		}
	}
}

func TestBareEnvironment(t *testing.T) {
	t.Setenv("HERALD_SURPRISE", "1")
	for bare, want := range map[bool]string{true: "[]", false: "[1]"} {
		p, err := start("it", processOptions{bare: bare}, "/bin/sh", "-c", "echo [$HERALD_SURPRISE]")
		if err != nil {
			t.Fatal(err)
		}
		if line, err := p.line(t.Context(), patience); err != nil || line != want {
			t.Errorf("bare %t: %q, %v", bare, line, err)
		}
		p.stop()
	}
}

func TestTailKeepsTheEnd(t *testing.T) {
	var out tail
	for i := range 5000 {
		fmt.Fprintln(&out, i)
	}
	if s := out.String(); len(s) > tailSize || !strings.HasSuffix(s, "\n4999") {
		t.Errorf("%d bytes, …%q", len(s), s[len(s)-20:])
	}
}

func TestMissingProgramsAreReported(t *testing.T) {
	if _, err := lookPath("no-such-program"); !errors.Is(err, ErrMissing) {
		t.Error(err)
	}
	b := &Builder{}
	b.Use(filepath.Join(t.TempDir(), "no-gateway"))
	if _, err := exec.LookPath("redis-server"); err == nil {
		if s, err := StartGateway(t.Context(), b); err == nil {
			s.Close()
			t.Error("a gateway without a program starts")
		}
	}
}

func TestRawWriter(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const n = 20
	raw, err := StartRaw(t.Context(), program, "raw-write", strconv.Itoa(n))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	c, err := clients.New(raw.Addr, raw.Dialect, []*loop.Loop{newLoop(t)}, clients.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if a := c.Connect(t.Context(), clients.ConnectPlan{Users: make([]int, n)}); a.Opened != n {
		t.Fatal(a.Err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := raw.Accepted(ctx); err != nil {
		t.Fatal(err)
	}
	stop := c.Record()
	for i := range 3 {
		if err := raw.Round(wire.Stamp{Due: loop.Now(), Number: uint32(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if got := c.AwaitReceived(ctx, 3*n, 5*time.Second); got != 3*n {
		t.Errorf("%d frames", got)
	}
	u, err := raw.Finish(ctx)
	if err != nil || u.Writes != 3*n || u.Blocked != 0 || u.CPU <= 0 {
		t.Errorf("%+v, %v", u, err)
	}
	if h := stop(); h.Count() != 3*n {
		t.Errorf("%d latencies", h.Count())
	}
}

func newLoop(t *testing.T) *loop.Loop {
	t.Helper()
	l, err := loop.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

var _ clients.Speaker = Dialect(nil)

func TestProcessTreeOfAServer(t *testing.T) {
	p, err := start("it", processOptions{}, "sh", "-c", "sleep 1000 & echo x; wait")
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop()
	if _, err := p.line(t.Context(), patience); err != nil {
		t.Fatal(err)
	}
	s := &Server{}
	if err := s.started(p); err != nil || len(s.Processes.Server) != 2 {
		t.Errorf("%v, %v", s.Processes, err)
	}
	if _, err := measure.CPUOf(s.Processes.Server); err != nil {
		t.Error(err)
	}
}
