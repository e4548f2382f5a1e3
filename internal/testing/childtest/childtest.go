// Package childtest starts child processes that a test controls over pipes.
package childtest

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"herald/internal/testing/redistest"
)

// Start starts cmd and returns its standard input and the lines of its standard
// output. The kernel kills it when the test process dies. Its standard error is the
// test's unless cmd sets another. The caller must end it and call cmd.Wait.
// Under -short it skips the test.
func Start(t testing.TB, cmd *exec.Cmd) (in io.WriteCloser, lines *bufio.Scanner) {
	t.Helper()
	redistest.Require(t, cmd.Path)
	if cmd.Stderr == nil {
		cmd.Stderr = os.Stderr
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return in, bufio.NewScanner(out)
}

// Process is a child process that a test controls by lines of text.
type Process struct {
	t     testing.TB
	cmd   *exec.Cmd
	in    io.Writer
	lines *bufio.Scanner
}

// StartSelf starts the test binary again with the given variables added to the
// environment; its TestMain sees them and runs a helper instead of the tests. The
// process is killed at the end of the test.
func StartSelf(t testing.TB, env ...string) *Process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = t.Output()
	in, lines := Start(t, cmd)
	p := &Process{t: t, cmd: cmd, in: in, lines: lines}
	t.Cleanup(p.Kill)
	return p
}

// Line waits for the next line of the process's output.
func (p *Process) Line() string {
	p.t.Helper()
	if !p.lines.Scan() {
		p.t.Fatalf("the child process closed its output: %v", p.lines.Err())
	}
	return p.lines.Text()
}

// Expect waits for the next line, which must be "word rest", and returns rest.
func (p *Process) Expect(word string) string {
	p.t.Helper()
	line := p.Line()
	rest, ok := strings.CutPrefix(line, word+" ")
	if !ok {
		p.t.Fatalf("the child process printed %q, want a line that starts with %q", line, word)
	}
	return rest
}

// Send writes a line to the process's input.
func (p *Process) Send(line string) {
	p.t.Helper()
	if _, err := io.WriteString(p.in, line+"\n"); err != nil {
		p.t.Fatalf("write to the child process: %v", err)
	}
}

// Stop suspends the process (SIGSTOP) and returns when all its threads have stopped.
func (p *Process) Stop() {
	p.t.Helper()
	p.signal(syscall.SIGSTOP)
	if err := unix.Waitid(unix.P_PID, p.cmd.Process.Pid, nil, unix.WSTOPPED, nil); err != nil {
		p.t.Fatalf("wait until the child process has stopped: %v", err)
	}
}

// Continue ends Stop.
func (p *Process) Continue() { p.t.Helper(); p.signal(syscall.SIGCONT) }

func (p *Process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("signal %v to the child process: %v", s, err)
	}
}

// Kill kills the process (SIGKILL), stopped or not, and waits for its end.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}
