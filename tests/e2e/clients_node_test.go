package e2e

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"
)

// nodeOnce installs what the programs in node depend on, once a test process.
var (
	nodeOnce sync.Once
	nodeErr  error
)

func npmCI() error {
	// npm writes this file last, so an interrupted one counts as missing.
	installed, err := os.Stat("node/node_modules/.package-lock.json")
	wanted, err2 := os.Stat("node/package-lock.json")
	if err == nil && err2 == nil && !installed.ModTime().Before(wanted.ModTime()) {
		return nil
	}
	cmd := exec.Command("npm", "ci", "--no-audit", "--no-fund")
	cmd.Dir = "node"
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("npm ci in tests/e2e/node: %w\n%s", err, out)
	}
	return nil
}

// nodeClient drives one process of node/client.mjs.
type nodeClient struct {
	pump
	t     *testing.T
	cmd   *exec.Cmd
	in    io.WriteCloser
	pongs chan struct{}
}

type nodeEvent struct {
	Event  string `json:"event"`
	Data   string `json:"data"`
	Code   int    `json:"code"`
	Reason string `json:"reason"`
	Status int    `json:"status"`
}

func dialNode(t *testing.T, url string, header map[string]string) client {
	t.Helper()
	headers, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	c := &nodeClient{t: t, cmd: exec.Command("node", "node/client.mjs", url, string(headers)), pongs: make(chan struct{}, 16)}
	c.cmd.Stderr = os.Stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	events := bufio.NewScanner(out)
	events.Buffer(nil, 1<<20)
	if first, err := nextEvent(events); err != nil || first.Event != "open" {
		t.Fatalf("node client: %+v, %v", first, err)
	}
	c.start(func() (string, error) { return c.read(events) })
	return c
}

// read returns the next message, noting pongs on the way.
func (c *nodeClient) read(events *bufio.Scanner) (string, error) {
	for {
		e, err := nextEvent(events)
		switch {
		case err != nil:
			return "", err
		case e.Event == "message":
			return e.Data, nil
		case e.Event == "close":
			return "", closed{e.Code, e.Reason}
		case e.Event == "pong":
			c.pongs <- struct{}{}
		}
	}
}

func nextEvent(events *bufio.Scanner) (e nodeEvent, err error) {
	if !events.Scan() {
		return e, errors.Join(errors.New("the node client has ended"), events.Err())
	}
	return e, json.Unmarshal(events.Bytes(), &e)
}

func (c *nodeClient) do(what, field, value string) error {
	line, err := json.Marshal(map[string]string{"do": what, field: value})
	if err != nil {
		return err
	}
	_, err = c.in.Write(append(line, '\n'))
	return err
}

func (c *nodeClient) text(text string) error { return c.do("text", "data", text) }
func (c *nodeClient) raw(b []byte) error {
	return c.do("raw", "base64", base64.StdEncoding.EncodeToString(b))
}
func (c *nodeClient) binary(b []byte) error {
	return c.do("binary", "base64", base64.StdEncoding.EncodeToString(b))
}

func (c *nodeClient) ping() error {
	if err := c.do("ping", "data", ""); err != nil {
		return err
	}
	select {
	case <-c.pongs:
		return nil
	case <-time.After(patience):
		return errors.New("no pong")
	}
}

func (c *nodeClient) leave() error {
	if err := c.do("close", "data", ""); err != nil {
		return err
	}
	return awaitNormalClose(c)
}

// drop closes stdin, which ends the process.
func (c *nodeClient) drop() {
	_ = c.in.Close()
	c.drain()
	if err := c.cmd.Wait(); err != nil {
		c.t.Errorf("node client: %v", err)
	}
}
