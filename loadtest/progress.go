//go:build linux

package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progress shows the current phase on standard error: as a bar on a terminal, as
// one line per phase elsewhere.
type progress struct {
	out     io.Writer
	columns int           // of the terminal; 0: not a terminal
	quit    chan struct{} // closed by close
	stopped chan struct{} // closed when drawing has stopped

	mu     sync.Mutex
	prefix string                   // guarded by mu
	bar    *progressbar.ProgressBar // guarded by mu; nil before the first phase and without a terminal
	began  time.Time                // of the phase; guarded by mu
	takes  time.Duration            // guarded by mu; 0: unknown
}

func newProgress(f *os.File, quiet bool) *progress {
	if quiet {
		return startProgress(io.Discard, 0)
	}
	columns, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		columns = 0
	}
	return startProgress(f, columns)
}

func startProgress(out io.Writer, columns int) *progress {
	p := &progress{out: out, columns: columns, quit: make(chan struct{}), stopped: make(chan struct{})}
	go p.draw()
	return p
}

// of sets the prefix of the following phases.
func (p *progress) of(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.prefix = fmt.Sprintf(format, args...)
}

// phase starts a phase with its estimated duration; 0: unknown.
func (p *progress) phase(what string, takes time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	what = p.prefix + " · " + what
	if p.columns == 0 {
		fmt.Fprintln(p.out, what)
		return
	}
	if text := []rune(what); len(text) > p.columns-barColumns {
		what = string(text[:max(0, p.columns-barColumns)])
	}
	p.clearLocked()
	p.began, p.takes = time.Now(), takes
	p.bar = progressbar.NewOptions64(cmp.Or(takes.Milliseconds(), spinner),
		progressbar.OptionSetWriter(p.out), progressbar.OptionSetDescription(what), progressbar.OptionShowDescriptionAtLineEnd(),
		progressbar.OptionSetWidth(barWidth), progressbar.OptionSetPredictTime(false), progressbar.OptionSetElapsedTime(true),
		progressbar.OptionSetSpinnerChangeInterval(0), progressbar.OptionUseANSICodes(true))
}

const (
	spinner    = -1 // the library's value for an unknown length
	barWidth   = 20
	barColumns = barWidth + len(" 100% || [59m59s] ") // what the library writes around the bar
)

// close stops drawing; on a terminal it leaves an empty line.
func (p *progress) close() {
	close(p.quit)
	<-p.stopped
}

// draw advances the bar with time.
func (p *progress) draw() {
	defer close(p.stopped)
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-p.quit:
			p.mu.Lock()
			defer p.mu.Unlock()
			p.clearLocked()
			return
		case <-t.C:
			p.tick()
		}
	}
}

func (p *progress) tick() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar == nil {
		return
	}
	if p.takes == 0 {
		_ = p.bar.Add(1)
		return
	}
	// A phase that takes longer than estimated stays just below 100 %.
	_ = p.bar.Set64(min(time.Since(p.began).Milliseconds(), p.takes.Milliseconds()-1))
}

func (p *progress) clearLocked() {
	if p.bar != nil {
		_ = p.bar.Clear()
	}
}
