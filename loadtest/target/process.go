//go:build linux

package target

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a child process. The kernel kills it when this process dies.
type process struct {
	name   string
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	lines  chan string // of standard output; closed at its end; dropped when full
	said   tail        // the end of standard error
	exited chan struct{}
}

// processOptions are the directory and environment of a process.
type processOptions struct {
	dir  string   // default: this process's
	env  []string // in addition to this process's
	bare bool     // without this process's environment
}

// start runs a program in a new process group.
func start(name string, in processOptions, program string, args ...string) (*process, error) {
	p := &process{name: name, lines: make(chan string, 64), exited: make(chan struct{})}
	p.cmd = exec.Command(program, args...)
	p.cmd.Dir, p.cmd.Stderr = in.dir, &p.said
	if in.bare {
		p.cmd.Env = append([]string{}, in.env...)
	} else {
		p.cmd.Env = append(p.cmd.Environ(), in.env...)
	}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		defer close(p.exited)
		p.read(stdout)
		_ = p.cmd.Wait()
	}()
	return p, nil
}

func (p *process) read(stdout io.Reader) {
	defer close(p.lines)
	for s := bufio.NewScanner(stdout); s.Scan(); {
		select {
		case p.lines <- s.Text():
		default:
		}
	}
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// stop kills the process and its children, and waits.
func (p *process) stop() {
	select {
	case <-p.exited: // another process may have its pid
	default:
		_ = syscall.Kill(-p.pid(), syscall.SIGKILL)
		<-p.exited
	}
}

// await polls until ok returns true, the process exits, or patience is over.
func (p *process) await(ctx context.Context, ok func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for !ok() {
		select {
		case <-p.exited:
			return fmt.Errorf("%s exited: %v\n%s", p.name, p.cmd.ProcessState, p.said.String())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w\n%s", p.name, ctx.Err(), p.said.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

// patience is the time limit for a server to become ready.
const patience = 20 * time.Second

// line waits for the next line of standard output.
func (p *process) line(ctx context.Context, patience time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case line, ok := <-p.lines:
		if ok {
			return line, nil
		}
		<-p.exited
		return "", fmt.Errorf("%s exited: %v\n%s", p.name, p.cmd.ProcessState, p.said.String())
	case <-ctx.Done():
		return "", fmt.Errorf("%s is not ready: %w\n%s", p.name, ctx.Err(), p.said.String())
	}
}

// Child is a child process that is controlled over its standard input and output.
type Child struct{ p *process }

// StartChild starts a program; name is for errors.
func StartChild(name, program string, args ...string) (*Child, error) {
	p, err := start(name, processOptions{}, program, args...)
	return &Child{p}, err
}

// Line waits for the next line of its output.
func (c *Child) Line(ctx context.Context, patience time.Duration) (string, error) {
	return c.p.line(ctx, patience)
}

// SendText writes to its standard input.
func (c *Child) SendText(text string) error {
	_, err := io.WriteString(c.p.stdin, text)
	return err
}

// Wait waits for the child to exit. It returns an error unless the exit code is 0.
func (c *Child) Wait(ctx context.Context, patience time.Duration) error {
	select {
	case <-c.p.exited:
	case <-time.After(patience):
		return fmt.Errorf("%s did not exit in time", c.p.name)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if !c.p.cmd.ProcessState.Success() {
		return fmt.Errorf("%s: %v\n%s", c.p.name, c.p.cmd.ProcessState, c.p.said.String())
	}
	return nil
}

// Stop terminates the child and waits. It has three seconds to stop its own
// children.
func (c *Child) Stop() {
	_ = c.p.stdin.Close()
	_ = c.p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.p.exited:
	case <-time.After(3 * time.Second):
		c.p.stop()
	}
}

// tail keeps the last tailSize bytes written to it.
type tail struct {
	mu sync.Mutex
	b  []byte // guarded by mu
}

const tailSize = 16 << 10 // bytes

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if len(t.b) > tailSize {
		t.b = append([]byte(nil), t.b[len(t.b)-tailSize:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.b))
}

// freeAddress returns an address on 127.0.0.1 with a free port.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

func accepts(addr string) bool {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return false
	}
	return c.Close() == nil
}

// lookPath is exec.LookPath with ErrMissing.
func lookPath(program string) (string, error) {
	path, err := exec.LookPath(program)
	if errors.Is(err, exec.ErrNotFound) {
		return "", fmt.Errorf("%w: %s is not installed", ErrMissing, program)
	}
	return path, err
}

// ErrMissing is returned when a program that a server needs is not installed.
var ErrMissing = errors.New("missing dependency")
