// Package redistest starts real redis-server processes for tests, on free
// loopback ports, and lets a test kill, stop (SIGSTOP), continue and restart them.
package redistest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// Server is one redis-server process. It dies with the test that started it.
type Server struct {
	Addr string // host:port on 127.0.0.1, the same across restarts

	t    testing.TB
	dir  string
	args []string
	env  []string // beside the test's own

	mu   sync.Mutex
	cmd  *exec.Cmd // guarded by mu; nil while the server is down
	exit chan struct{}
	log  bytes.Buffer // guarded by logMu, written by the process's output copier

	logMu sync.Mutex
}

// Require returns the path of a program that the test starts. Under -short it
// skips the test. If the program is not installed it calls Missing.
func Require(t testing.TB, program string) string {
	t.Helper()
	if testing.Short() {
		t.Skip("-short starts no processes")
	}
	path, err := exec.LookPath(program)
	if err != nil {
		Missing(t, program+" is not installed: run `make deps`")
	}
	return path
}

// Missing skips a test that this machine cannot run. In CI (CI=true) it fails the
// test instead. The variable REQUIRE_TOOLS overrides CI; empty, "0" and "false"
// mean skip.
func Missing(t testing.TB, reason string) {
	t.Helper()
	required, set := os.LookupEnv("REQUIRE_TOOLS")
	if !set {
		required = os.Getenv("CI")
	}
	if required != "" && required != "0" && required != "false" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// Start runs a redis-server without persistence, plus any further arguments
// ("--appendonly", "yes"), and waits until it answers.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	return start(t, nil, args)
}

func start(t testing.TB, env, args []string) *Server {
	t.Helper()
	Require(t, "redis-server")
	port, err := FreePort()
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{t: t, Addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), dir: t.TempDir(), env: env}
	s.args = append([]string{
		"--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--dir", s.dir,
		"--save", "", "--appendonly", "no", "--daemonize", "no", "--loglevel", "warning",
	}, args...)
	t.Cleanup(s.Kill)
	s.Restart()
	return s
}

// FreePort returns a TCP port on 127.0.0.1 that was free a moment ago.
func FreePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// URL returns the server's address in the form of REDIS_URL.
func (s *Server) URL() string { return "redis://" + s.Addr }

// Client returns a client that never retries, closed with the test.
func (s *Server) Client() *redis.Client {
	c := redis.NewClient(&redis.Options{Addr: s.Addr, MaxRetries: -1, ContextTimeoutEnabled: true})
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}

// Kill ends the process at once (SIGKILL), as a crash would. Killing a server
// that is down does nothing.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(syscall.SIGCONT)
	_ = s.cmd.Process.Kill()
	<-s.exit
	s.cmd = nil
}

// Stop suspends the process (SIGSTOP): connections stay open and nothing answers.
func (s *Server) Stop() { s.signal(syscall.SIGSTOP) }

// Continue ends Stop.
func (s *Server) Continue() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		s.t.Fatalf("signal %v to a redis-server that is down", sig)
	}
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatalf("signal %v: %v", sig, err)
	}
}

// Restart starts the process again on the same port and directory, after
// killing it if it runs, and waits until it answers.
func (s *Server) Restart() {
	s.t.Helper()
	s.Kill()
	s.mu.Lock()
	defer s.mu.Unlock()
	cmd := exec.Command("redis-server", s.args...)
	cmd.Stdout, cmd.Stderr = (*logWriter)(s), (*logWriter)(s)
	cmd.Env = append(os.Environ(), s.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		s.t.Fatalf("start redis-server: %v", err)
	}
	exit := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exit) }()
	s.cmd, s.exit = cmd, exit
	s.awaitAnswerLocked()
}

func (s *Server) awaitAnswerLocked() {
	s.t.Helper()
	c := redis.NewClient(&redis.Options{Addr: s.Addr, MaxRetries: -1, DialTimeout: time.Second})
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for c.Ping(ctx).Err() != nil {
		select {
		case <-s.exit:
			s.t.Fatalf("redis-server ended while starting:\n%s", s.Log())
		case <-ctx.Done():
			s.t.Fatalf("redis-server does not answer:\n%s", s.Log())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Dir returns the server's working directory, which holds its append-only file.
func (s *Server) Dir() string { return filepath.Clean(s.dir) }

// Log returns what the server has printed so far.
func (s *Server) Log() string {
	s.logMu.Lock()
	defer s.logMu.Unlock()
	return s.log.String()
}

type logWriter Server

func (w *logWriter) Write(p []byte) (int, error) {
	w.logMu.Lock()
	defer w.logMu.Unlock()
	return w.log.Write(p)
}
