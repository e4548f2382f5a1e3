package gatewaytest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// patience is the timeout for everything that must happen. Only a failing test waits that
// long.
const patience = 30 * time.Second

// Gateway is one gateway process. It dies with the test that started it.
type Gateway struct {
	*process
	t testing.TB // that fails when a method must end the test
}

// For returns the same process for a subtest: failures of its methods end the subtest
// only.
func (g *Gateway) For(t testing.TB) *Gateway { return &Gateway{process: g.process, t: t} }

type process struct {
	URL      string // http://host:port
	AdminURL string // http://host:port of the operators' listener; "" if it is off

	cmd    *exec.Cmd
	stdout output
	stderr output
	exited chan struct{} // closed when the process has ended and its output is read
	ending atomic.Bool   // the test has asked the process to exit
	http   *http.Client
}

// Start runs the gateway in an environment of PATH, HOME, free loopback ports, JSON logs
// and the given KEY=VALUE settings, which override, and waits until it is ready. The test
// fails if the process exits by itself, or if its log reports a data race or a panic.
func Start(t testing.TB, env ...string) *Gateway {
	t.Helper()
	g := Launch(t, Build(t), env...)
	g.AwaitReady()
	return g
}

// Launch is Start for a program of Build, but waits only until it listens: without Redis a
// gateway is never ready.
func Launch(t testing.TB, program string, env ...string) *Gateway {
	t.Helper()
	g := &Gateway{t: t, process: &process{exited: make(chan struct{}), http: newClient(t)}}
	g.cmd = exec.Command(program)
	g.cmd.Env = environment(env)
	g.cmd.Stdout, g.cmd.Stderr = &g.stdout, &g.stderr
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := g.cmd.Start(); err != nil {
		t.Fatalf("start the gateway: %v", err)
	}
	go func() { _ = g.cmd.Wait(); close(g.exited) }()
	t.Cleanup(g.finish)
	g.awaitListening()
	return g
}

// Refused runs the gateway with settings that it must refuse, and returns its exit code
// and output.
func Refused(t testing.TB, env ...string) (code int, output string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, Build(t))
	cmd.Env = environment(env)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	b, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("the gateway runs with %q:\n%s", env, b)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("start the gateway: %v", err)
	}
	return cmd.ProcessState.ExitCode(), string(b)
}

// environment returns the variables, each with its last value.
func environment(env []string) []string {
	all := slices.Concat([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"),
		"HERALD_LISTEN=127.0.0.1:0", "HERALD_ADMIN_LISTEN=127.0.0.1:0", "HERALD_LOG_FORMAT=json",
	}, env)
	var list []string
	for i, entry := range all {
		name, _, _ := strings.Cut(entry, "=")
		again := slices.ContainsFunc(all[i+1:], func(later string) bool { return strings.HasPrefix(later, name+"=") })
		if !again {
			list = append(list, entry)
		}
	}
	return list
}

func (g *Gateway) awaitListening() {
	g.t.Helper()
	addr, admin := "", ""
	g.await("listens", func() bool {
		addr, admin = listening(g.Log())
		return addr != ""
	})
	g.URL = "http://" + addr
	if admin != "off" {
		g.AdminURL = "http://" + admin
	}
}

// listening finds the line of the log that says where the gateway listens.
func listening(log string) (addr, admin string) {
	for line := range strings.Lines(log) {
		var entry struct{ Msg, Addr, Admin string }
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "listening" {
			return entry.Addr, entry.Admin
		}
	}
	return "", ""
}

// AwaitReady waits until /health/ready answers 200.
func (g *Gateway) AwaitReady() {
	g.t.Helper()
	g.await("is ready", func() bool { return g.Ready() == http.StatusOK })
}

// AwaitNotReady waits until /health/ready answers 503.
func (g *Gateway) AwaitNotReady() {
	g.t.Helper()
	g.await("is not ready", func() bool { return g.Ready() == http.StatusServiceUnavailable })
}

// Ready returns the status of /health/ready; 0 without an answer.
func (g *Gateway) Ready() int {
	a, err := g.Try("GET", "/health/ready", "")
	if err != nil {
		return 0
	}
	return a.Status
}

// await polls for a state of the process that gives no event.
func (g *Gateway) await(what string, ok func() bool) {
	g.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); {
		select {
		case <-g.exited:
			g.t.Fatalf("the gateway ended (%v) before it %s:\n%s", g.cmd.ProcessState, what, g.Log())
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			g.t.Fatalf("waited %v until the gateway %s:\n%s", patience, what, g.Log())
		}
	}
}

// Stop sends SIGTERM, waits for the end and returns the exit code.
func (g *Gateway) Stop() int {
	g.t.Helper()
	g.Terminate()
	return g.Wait()
}

// Terminate sends SIGTERM and does not wait.
func (g *Gateway) Terminate() {
	g.t.Helper()
	g.ending.Store(true)
	g.signal(syscall.SIGTERM)
}

// Wait waits for the process's end and returns its exit code.
func (g *Gateway) Wait() int {
	g.t.Helper()
	g.ending.Store(true)
	select {
	case <-g.exited:
	case <-time.After(2 * patience):
		g.t.Fatalf("the gateway has not ended:\n%s", g.Log())
	}
	return g.cmd.ProcessState.ExitCode()
}

// Kill ends the process at once (SIGKILL), as a crash would.
func (g *Gateway) Kill() {
	g.ending.Store(true)
	_ = g.cmd.Process.Kill()
	<-g.exited
}

// Pause suspends the process (SIGSTOP): connections stay open, nothing answers.
func (g *Gateway) Pause() { g.signal(syscall.SIGSTOP) }

// Continue ends Pause.
func (g *Gateway) Continue() { g.signal(syscall.SIGCONT) }

func (g *Gateway) signal(sig syscall.Signal) {
	g.t.Helper()
	if err := g.cmd.Process.Signal(sig); err != nil {
		g.t.Fatalf("signal %v to the gateway: %v", sig, err)
	}
}

// finish kills the process if it runs, and checks its log.
func (g *Gateway) finish() {
	select {
	case <-g.exited:
		if !g.ending.Load() {
			g.t.Errorf("the gateway ended by itself (%v):\n%s", g.cmd.ProcessState, g.Log())
		}
	default:
		g.Kill()
	}
	g.http.CloseIdleConnections()
	for _, sign := range []string{"DATA RACE", "panic:", `"msg":"panic"`, "fatal error:"} {
		if strings.Contains(g.Log(), sign) {
			g.t.Errorf("the gateway's log has %q:\n%s", sign, g.Log())
			return
		}
	}
}

// Log returns what the process has written to standard error so far.
func (g *Gateway) Log() string { return g.stderr.String() }

// Stdout returns what the process has written to standard output so far.
func (g *Gateway) Stdout() string { return g.stdout.String() }

// output collects what a process writes.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}
