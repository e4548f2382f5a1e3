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
	"time"

	"golang.org/x/sys/unix"
)

// Peers starts the servers that the gateway is compared with.
type Peers struct {
	dir       string // loadtest/peers of the checkout
	installed bool
}

// NewPeers finds the peers' sources from anywhere in the checkout.
func NewPeers(ctx context.Context) (*Peers, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return nil, fmt.Errorf("go env GOMOD: %w", err)
	}
	dir := filepath.Join(filepath.Dir(strings.TrimSpace(string(out))), "loadtest", "peers")
	if _, err := os.Stat(filepath.Join(dir, "article.js")); err != nil {
		return nil, fmt.Errorf("the peers' sources are in the checkout, which this is not run in: %w", err)
	}
	return &Peers{dir: dir}, nil
}

// Start starts a Redis and a peer on it. The error is ErrMissing where the
// machine lacks what it needs.
func (p *Peers) Start(ctx context.Context, kind Kind) (_ *Server, err error) {
	d, err := kind.dialect("")
	if err != nil {
		return nil, err
	}
	s := &Server{Dialect: d, Name: kind.Title(), kind: kind}
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
	case Article:
		err = p.node(ctx, s, "article.js", url, "1000000000")
	case ArticleUnlimited:
		err = p.node(ctx, s, "article.js", url, "off")
	case SocketIO:
		err = p.node(ctx, s, "socketio.js", url)
	case Nchan:
		err = p.nginx(ctx, s)
	default:
		err = fmt.Errorf("%s is no peer", kind)
	}
	return s, err
}

// node runs one of the scripts and waits until it says that it is ready.
func (p *Peers) node(ctx context.Context, s *Server, script string, args ...string) error {
	program, err := lookPath("node")
	if err != nil {
		return err
	}
	if err := p.install(ctx); err != nil {
		return err
	}
	in := surroundings{dir: p.dir, env: []string{"NODE_ENV=production"}}
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
		return fmt.Errorf("%s says %q", script, line)
	}
	return s.started(proc)
}

// install fetches the packages of package-lock.json, unless they are there.
// npm writes node_modules/.package-lock.json last.
func (p *Peers) install(ctx context.Context) error {
	if p.installed {
		return nil
	}
	lock, err := os.Stat(filepath.Join(p.dir, "package-lock.json"))
	if err != nil {
		return err
	}
	done, err := os.Stat(filepath.Join(p.dir, "node_modules", ".package-lock.json"))
	if err == nil && !done.ModTime().Before(lock.ModTime()) {
		p.installed = true
		return nil
	}
	npm, err := lookPath("npm")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, npm, "ci", "--no-audit", "--no-fund", "--loglevel=error")
	cmd.Dir = p.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: npm ci: %w\n%s", ErrMissing, err, bytes.TrimSpace(out))
	}
	p.installed = true
	return nil
}

// modules are where distributions put nginx's.
var modules = []string{"/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/share/nginx/modules"}

func nchanModule() (string, error) {
	for _, dir := range modules {
		path := filepath.Join(dir, "ngx_nchan_module.so")
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%w: nginx's module nchan is not installed (Debian: libnginx-mod-nchan)", ErrMissing)
}

// nginx runs it in a folder of its own, in the foreground.
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
	// Its workers are another user, and need the folder.
	if err := errors.Join(os.Chmod(dir, 0o755), p.configure(filepath.Join(dir, "nginx.conf"), module, s)); err != nil {
		return err
	}
	proc, err := start(s.Name, surroundings{dir: dir}, program, "-p", dir, "-c", filepath.Join(dir, "nginx.conf"), "-e", "stderr")
	if err != nil {
		return err
	}
	s.stop = append(s.stop, proc.stop)
	// Each worker answers 503 until it has found Redis, and says when it has.
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

// files is how many descriptors a child may open.
func files() int {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil || r.Max > 1<<20 {
		return 1 << 20
	}
	return int(r.Max)
}
