//go:build linux

package target

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"herald/loadtest/wire"
)

// apiKey is the API key of gateways started here.
const apiKey = "loadtest-0123456789abcdef"

// publishLimit keeps the rate limiter of a gateway on, for its cost, with a limit that
// is never reached.
const publishLimit = "1000000000/1m"

// Builder compiles the gateway, once.
type Builder struct {
	once    sync.Once
	dir     string
	program string
	err     error
}

// Use makes Build return program instead. It has no effect after Build or Use.
func (b *Builder) Use(program string) { b.once.Do(func() { b.program = program }) }

// Build compiles the gateway of this checkout once and returns its path.
func (b *Builder) Build(ctx context.Context) (string, error) {
	b.once.Do(func() {
		if b.dir, b.err = os.MkdirTemp("", "loadtest"); b.err != nil {
			return
		}
		b.program = filepath.Join(b.dir, "gateway")
		cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", b.program, "herald/cmd/gateway")
		if out, err := cmd.CombinedOutput(); err != nil {
			b.err = fmt.Errorf("build the gateway: %w\n%s", err, out)
		}
	})
	return b.program, b.err
}

// Close removes the compiled program.
func (b *Builder) Close() {
	if b.dir != "" {
		_ = os.RemoveAll(b.dir)
	}
}

// StartGateway starts a Redis and a gateway; flags are added to the gateway's, and
// override them.
func StartGateway(ctx context.Context, b *Builder, flags ...string) (_ *Server, err error) {
	program, err := b.Build(ctx)
	if err != nil {
		return nil, err
	}
	s := &Server{Dialect: &herald{key: apiKey}, Name: Herald.Title()}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if err := s.startRedis(ctx); err != nil {
		return nil, err
	}
	return s, s.startNode(ctx, program, flags)
}

// AddNode starts a second gateway on the same Redis for the sockets; the first one
// keeps publishing.
func (s *Server) AddNode(ctx context.Context, b *Builder, flags ...string) error {
	program, err := b.Build(ctx)
	if err != nil {
		return err
	}
	node := &Server{Dialect: s.Dialect, Name: s.Name, Redis: s.Redis}
	node.Processes.Redis = s.Processes.Redis
	if err := node.startNode(ctx, program, flags); err != nil {
		node.Close()
		return err
	}
	s.stop = append(s.stop, node.Close)
	s.DeliveryNode = node
	return nil
}

func (s *Server) startNode(ctx context.Context, program string, flags []string) (err error) {
	if s.Addr, err = freeAddress(); err != nil {
		return err
	}
	admin, err := freeAddress()
	if err != nil {
		return err
	}
	s.Admin = "http://" + admin
	args := append([]string{
		"--listen=" + s.Addr, "--admin-listen=" + admin, "--redis-url=redis://" + s.Redis, "--api-keys=loadtest:" + apiKey,
		"--publish-limit=" + publishLimit, "--log-format=text", "--log-level=warn",
	}, flags...)
	// No HERALD_* variable of this process may change the gateway.
	p, err := start("the gateway", processOptions{bare: true}, program, args...)
	if err != nil {
		return err
	}
	s.stop = append(s.stop, p.stop)
	if err := p.await(ctx, func() bool { return statusOf(ctx, "http://"+s.Addr+"/health/ready") == http.StatusOK }); err != nil {
		return err
	}
	return s.started(p)
}

// client is for occasional requests, without keep-alive.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}

func statusOf(ctx context.Context, url string) int {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// Prepare creates what users 0 to n-1 need to connect: a session each on the
// gateway.
func (s *Server) Prepare(ctx context.Context, n int) error {
	h, ok := s.Dialect.(*herald)
	if !ok || len(h.sessions) >= n {
		return nil
	}
	from := len(h.sessions)
	h.sessions = append(h.sessions, make([]string, n-from)...)
	sessions := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: sessionClients}}
	defer sessions.CloseIdleConnections()
	next := atomic.Int64{}
	next.Store(int64(from))
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var workers sync.WaitGroup
	for range sessionClients {
		workers.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				id, err := h.createSession(ctx, sessions, s.Addr, i)
				for try := 1; err != nil && try < sessionTries && ctx.Err() == nil; try++ {
					_ = Sleep(ctx, time.Duration(try)*100*time.Millisecond)
					id, err = h.createSession(ctx, sessions, s.Addr, i)
				}
				if h.sessions[i] = id; err != nil {
					cancel(err)
				}
			}
		})
	}
	workers.Wait()
	if err := context.Cause(ctx); err != nil {
		h.sessions = h.sessions[:from]
		return fmt.Errorf("create sessions: %w", err)
	}
	return nil
}

// Sessions are created concurrently, with retries while Redis is busy, because their
// creation is not measured.
const (
	sessionClients = 16
	sessionTries   = 5
)

func (h *herald) createSession(ctx context.Context, c *http.Client, addr string, user int) (string, error) {
	body := strings.NewReader(`{"userId":"` + wire.UserID(user) + `"}`)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+"/sessions", body)
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+h.key)
	resp, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusCreated {
		return "", fmt.Errorf("POST /sessions: %s %.200s", resp.Status, b)
	}
	var session struct{ SessionID string }
	if err := json.Unmarshal(b, &session); err != nil {
		return "", fmt.Errorf("POST /sessions: %w", err)
	}
	if session.SessionID == "" {
		return "", errors.New("POST /sessions: no sessionId")
	}
	return session.SessionID, nil
}

// Batch appends a request that publishes the message to each of these users; it
// returns nil if the server has no batches.
func (s *Server) Batch(dst []byte, users []int, message []byte) []byte {
	h, ok := s.Dialect.(*herald)
	if !ok {
		return nil
	}
	body := []byte(`{"notifications":[`)
	for i, user := range users {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, `{"userId":"`...)
		body = append(body, wire.UserID(user)...)
		body = append(body, `","message":`...)
		body = append(body, message...)
		body = append(body, '}')
	}
	return append(dst, wire.Post(s.Addr, "/notify/batch", append(body, "]}"...), jsonType, h.authorization())...)
}

// Goroutines reads the gateway's metrics; 0 if its admin listener is unknown.
func (s *Server) Goroutines(ctx context.Context) int64 {
	if s.Admin == "" {
		return 0
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Admin+"/metrics", nil)
	if err != nil {
		return 0
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0
	}
	defer func() { _ = resp.Body.Close() }()
	b, _ := io.ReadAll(resp.Body)
	_, rest, _ := bytes.Cut(b, []byte("\ngo_goroutines "))
	value, _, _ := bytes.Cut(rest, []byte("\n"))
	n, _ := strconv.ParseInt(string(value), 10, 64)
	return n
}
