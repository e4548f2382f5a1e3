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
	"text/template"

	"golang.org/x/sys/unix"
)

// Peers starts the servers that the gateway is compared with.
type Peers struct {
	dir string // loadtest/peers of the checkout
}

// NewPeers finds loadtest/peers from any directory of the checkout.
func NewPeers(ctx context.Context) (*Peers, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return nil, fmt.Errorf("go env GOMOD: %w", err)
	}
	dir := filepath.Join(filepath.Dir(strings.TrimSpace(string(out))), "loadtest", "peers")
	if _, err := os.Stat(filepath.Join(dir, "baseline.js")); err != nil {
		return nil, fmt.Errorf("loadtest/peers is not found: run this in the checkout: %w", err)
	}
	return &Peers{dir: dir}, nil
}

// Start starts a Redis and a peer on it. It returns ErrMissing if the peer's
// programs are not installed.
func (p *Peers) Start(ctx context.Context, kind Kind) (_ *Server, err error) {
	d, err := kind.dialect("")
	if err != nil {
		return nil, err
	}
	s := &Server{Dialect: d, Name: kind.Title()}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if err := s.startRedis(ctx); err != nil {
		return nil, err
	}
	if s.Addr, err = freeAddress(); err != nil {
		return nil, err
	}
	url := "redis://" + s.Redis
	switch kind {
	case Baseline:
		err = p.node(ctx, s, "baseline.js", url, "1000000000")
	case BaselineUnlimited:
		err = p.node(ctx, s, "baseline.js", url, "off")
	case SocketIO:
		err = p.node(ctx, s, "socketio.js", url)
	case Nchan:
		err = p.nginx(ctx, s)
	default:
		err = fmt.Errorf("%s is not a peer", kind)
	}
	return s, err
}

// node runs a script of loadtest/peers and waits until it prints "ready".
func (p *Peers) node(ctx context.Context, s *Server, script string, args ...string) error {
	program, err := lookPath("node")
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(p.dir, "node_modules", ".package-lock.json")); err != nil { // npm writes it last
		return fmt.Errorf("%w: the packages of loadtest/peers are not installed: run scripts/deps.sh compare", ErrMissing)
	}
	in := processOptions{dir: p.dir, env: []string{"NODE_ENV=production"}}
	proc, err := start(s.Name, in, program, append([]string{script, s.Addr}, args...)...)
	if err != nil {
		return err
	}
	s.stop = append(s.stop, proc.stop)
	line, err := proc.line(ctx, patience)
	if err != nil {
		return err
	}
	if line != "ready" {
		return fmt.Errorf("%s printed %q instead of \"ready\"", script, line)
	}
	return s.started(proc)
}

// modules lists the directories in which distributions install nginx modules.
var modules = []string{"/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/share/nginx/modules"}

func nchanModule() (string, error) {
	for _, dir := range modules {
		path := filepath.Join(dir, "ngx_nchan_module.so")
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%w: the nginx module nchan is not installed (Debian: libnginx-mod-nchan)", ErrMissing)
}

// nginx runs nginx in the foreground, in a temporary directory.
func (p *Peers) nginx(ctx context.Context, s *Server) error {
	program, err := lookPath("nginx")
	if err != nil {
		return err
	}
	module, err := nchanModule()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "loadtest")
	if err != nil {
		return err
	}
	s.stop = append(s.stop, func() { _ = os.RemoveAll(dir) })
	// The workers run as another user and need access to the directory.
	if err := errors.Join(os.Chmod(dir, 0o755), p.configure(filepath.Join(dir, "nginx.conf"), module, s)); err != nil {
		return err
	}
	proc, err := start(s.Name, processOptions{dir: dir}, program, "-p", dir, "-c", filepath.Join(dir, "nginx.conf"), "-e", "stderr")
	if err != nil {
		return err
	}
	s.stop = append(s.stop, proc.stop)
	// Each worker answers 503 until it is connected to Redis, and then logs it.
	ready := func() bool {
		log := proc.said.String()
		workers := strings.Count(log, "start worker process ")
		return workers > 0 && strings.Count(log, "Redis upstream redis: ready") == workers
	}
	if err := proc.await(ctx, ready); err != nil {
		return err
	}
	return s.started(proc)
}

func (p *Peers) configure(file, module string, s *Server) error {
	t, err := template.ParseFiles(filepath.Join(p.dir, "nchan.conf"))
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, map[string]string{
		"Module": module, "Files": strconv.Itoa(files()), "Redis": "redis://" + s.Redis, "Address": s.Addr,
	}); err != nil {
		return err
	}
	return os.WriteFile(file, b.Bytes(), 0o644)
}

// files returns the limit of descriptors for a child process.
func files() int {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil || r.Max > 1<<20 {
		return 1 << 20
	}
	return int(r.Max)
}
