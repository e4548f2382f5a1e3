package e2e

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"herald/internal/testing/gatewaytest"
	"herald/internal/testing/redistest"
)

// A block is one ```sh … ``` of a page. A comment in the line above it changes how it
// is run: <!-- not run: reason -->, or <!-- keeps running --> for a gateway that the
// page's further blocks talk to.
type block struct {
	line       int
	text       string
	notRun     string
	background bool
}

var (
	shellBlock = regexp.MustCompile("(?ms)^(?:<!-- (not run: [^\n]+|keeps running) -->\n)?```sh\n(.*?)^```$")
	exports    = regexp.MustCompile(`(?m)^export .*\n`)
)

func blocks(page string) (list []block) {
	for _, m := range shellBlock.FindAllStringSubmatchIndex(page, -1) {
		b := block{line: 1 + strings.Count(page[:m[4]], "\n"), text: page[m[4]:m[5]]}
		if m[2] >= 0 {
			note := page[m[2]:m[3]]
			b.notRun, _ = strings.CutPrefix(note, "not run: ")
			if b.background = note == "keeps running"; b.background {
				b.notRun = ""
			}
		}
		list = append(list, b)
	}
	return list
}

func TestBlocks(t *testing.T) {
	list := blocks("```sh\na\n```\n<!-- not run: why -->\n```sh\nb\n```\n<!-- keeps running -->\n```sh\nc\n```\n```json\n{}\n```\n")
	want := []block{{line: 2, text: "a\n"}, {line: 6, text: "b\n", notRun: "why"}, {line: 10, text: "c\n", background: true}}
	if fmt.Sprint(list) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", list, want)
	}
}

// TestCommandsOfTheDocuments runs each page's shell blocks from top to bottom, as a
// reader would. Only addresses differ: each page has a loopback address and a Redis.
func TestCommandsOfTheDocuments(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("docs: %v, %v", pages, err)
	}
	found := 0
	for _, name := range append(pages, "../../README.md") {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		list := blocks(string(text))
		found += len(list)
		if opened := strings.Count(string(text), "\n```sh\n"); opened != len(list) {
			t.Errorf("%s: %d shell blocks, %d of them understood", name, opened, len(list))
		}
		if len(list) == 0 {
			continue
		}
		t.Run(filepath.Base(name), func(t *testing.T) {
			t.Parallel()
			runPage(t, list)
		})
	}
	if found < 10 {
		t.Errorf("only %d shell blocks in README.md and docs/", found)
	}
}

// reader is a shell whose exported variables live from one block to the next.
type reader struct {
	t         *testing.T
	dir       string // state file, shims
	addresses *strings.Replacer
	env       []string
}

func runPage(t *testing.T, list []block) {
	redistest.Require(t, "curl")
	r := newReader(t)
	ran := 0
	for _, b := range list {
		if b.notRun != "" {
			t.Logf("line %d: not run: %s", b.line, b.notRun)
			continue
		}
		ran++
		if b.background {
			r.start(b)
		} else {
			r.run(b)
		}
	}
	t.Logf("%d blocks, %d run", len(list), ran)
}

func newReader(t *testing.T) *reader {
	t.Helper()
	r := &reader{t: t, dir: t.TempDir()}
	// A loopback address of 16 million, so that no other page or program has the ports.
	n := rand.Uint32()
	host := fmt.Sprintf("127.%d.%d.%d", 1+n>>16%250, n>>8&0xff, 1+n%250)
	var pairs []string
	for _, port := range []string{"3000", "3001", "3100", "3101"} {
		pairs = append(pairs, "127.0.0.1:"+port, host+":"+port)
	}
	pairs = append(pairs, "127.0.0.1:6379", redistest.Start(t).Addr)
	r.addresses = strings.NewReplacer(pairs...)
	// `go run ./cmd/gateway` and `gateway` are the program that these tests built; curl
	// fails on a refusal, and a stream that --max-time ends is no failure.
	r.shim("gateway", `exec "`+gatewaytest.Build(t)+`" "$@"`)
	goProgram, err := exec.LookPath("go")
	if err != nil {
		t.Fatal(err)
	}
	r.shim("go", `if [ "$1 $2" = "run ./cmd/gateway" ]; then shift 2; exec gateway "$@"; fi; exec "`+goProgram+`" "$@"`)
	r.shim("curl", `code=0; "`+redistest.Require(t, "curl")+`" -sS --fail-with-body "$@" || code=$?; [ $code -eq 28 ] || exit $code`)
	r.env = append(os.Environ(), "PATH="+r.dir+":"+os.Getenv("PATH"), "HERALD_LOG_FORMAT=text",
		r.addresses.Replace("HERALD_LISTEN=127.0.0.1:3000"), r.addresses.Replace("HERALD_ADMIN_LISTEN=127.0.0.1:3001"))
	r.write("state", "")
	return r
}

func (r *reader) shim(name, script string) { r.write(name, "#!/bin/sh\n"+script+"\n") }

func (r *reader) write(name, text string) {
	r.t.Helper()
	// A child that another test forks meanwhile would hold the script open for writing,
	// and executing it would fail with ETXTBSY.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o755); err != nil {
		r.t.Fatal(err)
	}
}

func (r *reader) command(ctx context.Context, script string) (*exec.Cmd, *bytes.Buffer) {
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script)
	cmd.Dir, cmd.Env = "../..", r.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	return cmd, &out
}

func (r *reader) run(b block) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 2*time.Minute)
	defer cancel()
	state := filepath.Join(r.dir, "state")
	cmd, out := r.command(ctx, ". "+state+"\n"+r.addresses.Replace(b.text)+"\nexport -p >"+state)
	if err := cmd.Run(); err != nil {
		r.t.Errorf("line %d: %v\n%s\n%s", b.line, err, b.text, out)
	}
}

// start runs a block that keeps running until the page's end, and waits until its
// gateway is ready. The block's exports reach the following blocks.
func (r *reader) start(b block) {
	r.t.Helper()
	r.run(block{line: b.line, text: strings.Join(exports.FindAllString(b.text, -1), "")})
	text := r.addresses.Replace(b.text)
	ctx, stop := context.WithCancel(context.Background())
	cmd, out := r.command(ctx, ". "+filepath.Join(r.dir, "state")+"\n"+text)
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }()
	r.t.Cleanup(func() { stop(); <-ended })
	addr := r.addresses.Replace("127.0.0.1:3000")
	if m := regexp.MustCompile(`--listen (\S+)`).FindStringSubmatch(text); m != nil {
		addr = m[1]
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if resp, err := http.Get("http://" + addr + "/health/ready"); err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-ended:
			r.t.Fatalf("line %d: the gateway exited\n%s\n%s", b.line, b.text, out)
		default:
		}
		if time.Now().After(deadline) {
			stop()
			<-ended
			r.t.Fatalf("line %d: waited %v for %s\n%s\n%s", b.line, patience, addr, b.text, out)
		}
	}
}
