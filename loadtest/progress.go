//go:build linux

package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// progress says on standard error what is being done: a bar on a terminal, a
// line for each phase elsewhere.
type progress struct {
	out      io.Writer // nil: nothing
	terminal bool
	quit     chan struct{}
	stopped  chan struct{}

	mu     sync.Mutex
	prefix string        // guarded by mu
	what   string        // guarded by mu
	began  time.Time     // guarded by mu
	takes  time.Duration // guarded by mu; 0: unknown
}

func newProgress(f *os.File, quiet bool) *progress {
	p := &progress{quit: make(chan struct{}), stopped: make(chan struct{})}
	if !quiet {
		p.out = f
		_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
		p.terminal = err == nil
	}
	go p.draw()
	return p
}

// of names what the following phases are part of.
func (p *progress) of(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.prefix = fmt.Sprintf(format, args...)
}

// phase begins one that takes about so long.
func (p *progress) phase(what string, takes time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.what, p.takes, p.began = what, takes, time.Now()
	if p.out != nil && !p.terminal {
		fmt.Fprintf(p.out, "%s · %s\n", p.prefix, what)
	}
}

// close ends it and leaves an empty line's beginning.
func (p *progress) close() {
	close(p.quit)
	<-p.stopped
}

func (p *progress) draw() {
	defer close(p.stopped)
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-p.quit:
			p.clear()
			return
		case <-t.C:
		}
		if p.out != nil && p.terminal {
			fmt.Fprint(p.out, "\r\x1b[K"+p.line())
		}
	}
}

func (p *progress) clear() {
	if p.out != nil && p.terminal {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}

const barWidth = 24

func (p *progress) line() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.what == "" {
		return p.prefix
	}
	passed := time.Since(p.began)
	return fmt.Sprintf("%s %s · %s %.0f s", bar(passed, p.takes), p.prefix, p.what, passed.Seconds())
}

// bar fills up to its end, and stays there if it takes longer.
func bar(passed, takes time.Duration) string {
	full := barWidth
	if takes > 0 {
		full = min(barWidth, int(barWidth*passed/takes))
	}
	return "[" + strings.Repeat("█", full) + strings.Repeat("·", barWidth-full) + "]"
}
