package e2e

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	coder "github.com/coder/websocket"
	"github.com/gorilla/websocket"
)

// pump is the reading half of a client. The libraries answer pings and closes only while a
// goroutine reads.
type pump struct {
	texts chan string // closed when the connection has ended
	err   error       // set before texts is closed: why
}

// start reads with read until it fails.
func (p *pump) start(read func() (string, error)) {
	p.texts = make(chan string, 1024)
	go func() {
		defer close(p.texts)
		for {
			text, err := read()
			if err != nil {
				p.err = err
				return
			}
			p.texts <- text
		}
	}()
}

func (p *pump) next() (string, error) {
	select {
	case text, ok := <-p.texts:
		if !ok {
			return "", p.err
		}
		return text, nil
	case <-time.After(patience):
		return "", errors.New("nothing came")
	}
}

// drain waits until the reader has returned.
func (p *pump) drain() {
	for range p.texts {
	}
}

func headerOf(lines map[string]string) http.Header {
	h := http.Header{}
	for name, value := range lines {
		h.Set(name, value)
	}
	return h
}

func httpClient(t *testing.T) *http.Client {
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// --- github.com/coder/websocket ---

type coderClient struct {
	pump
	conn   *coder.Conn
	ctx    context.Context
	cancel context.CancelFunc
}

func dialCoder(t *testing.T, url string, header map[string]string) client {
	t.Helper()
	c := &coderClient{}
	c.ctx, c.cancel = context.WithCancel(t.Context())
	conn, _, err := coder.Dial(c.ctx, url, &coder.DialOptions{
		HTTPClient: httpClient(t), HTTPHeader: headerOf(header), Subprotocols: []string{"herald.v1"},
		CompressionMode: coder.CompressionContextTakeover,
	})
	if err != nil {
		c.cancel()
		t.Fatal(err)
	}
	c.conn = conn
	c.start(func() (string, error) {
		_, b, err := conn.Read(c.ctx)
		var end coder.CloseError
		if errors.As(err, &end) {
			err = closed{int(end.Code), end.Reason}
		}
		return string(b), err
	})
	return c
}

func (c *coderClient) text(text string) error { return c.raw([]byte(text)) }
func (c *coderClient) raw(b []byte) error     { return c.conn.Write(c.ctx, coder.MessageText, b) }
func (c *coderClient) binary(b []byte) error  { return c.conn.Write(c.ctx, coder.MessageBinary, b) }
func (c *coderClient) ping() error            { return c.conn.Ping(c.ctx) }
func (c *coderClient) leave() error           { return c.conn.Close(coder.StatusNormalClosure, "done") }

func (c *coderClient) drop() {
	c.cancel()
	_ = c.conn.CloseNow()
	c.drain()
}

// --- github.com/gorilla/websocket ---

type gorillaClient struct {
	pump
	conn  *websocket.Conn
	pongs chan string
}

func dialGorilla(t *testing.T, url string, header map[string]string) client {
	t.Helper()
	dialer := websocket.Dialer{Subprotocols: []string{"herald.v1"}, EnableCompression: true, HandshakeTimeout: patience}
	conn, resp, err := dialer.Dial(url, headerOf(header))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	c := &gorillaClient{conn: conn, pongs: make(chan string, 16)}
	conn.SetPongHandler(func(data string) error {
		c.pongs <- data
		return nil
	})
	c.start(func() (string, error) {
		_, b, err := conn.ReadMessage()
		var end *websocket.CloseError
		if errors.As(err, &end) {
			err = closed{end.Code, end.Text}
		}
		return string(bytes.Clone(b)), err
	})
	return c
}

func (c *gorillaClient) text(text string) error { return c.raw([]byte(text)) }
func (c *gorillaClient) raw(b []byte) error     { return c.conn.WriteMessage(websocket.TextMessage, b) }
func (c *gorillaClient) binary(b []byte) error {
	return c.conn.WriteMessage(websocket.BinaryMessage, b)
}

func (c *gorillaClient) ping() error {
	if err := c.conn.WriteControl(websocket.PingMessage, []byte("are you there"), time.Now().Add(patience)); err != nil {
		return err
	}
	select {
	case data := <-c.pongs:
		if data != "are you there" {
			return errors.New("pong with other data: " + data)
		}
		return nil
	case <-time.After(patience):
		return errors.New("no pong")
	}
}

// leave waits for the gateway's close frame, which the library reports to the reader.
func (c *gorillaClient) leave() error {
	bye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "done")
	if err := c.conn.WriteControl(websocket.CloseMessage, bye, time.Now().Add(patience)); err != nil {
		return err
	}
	return awaitNormalClose(c)
}

// awaitNormalClose reads until the close frame, which must answer the client's own.
func awaitNormalClose(c interface{ next() (string, error) }) error {
	for {
		_, err := c.next()
		if err == nil {
			continue
		}
		if end, ok := err.(closed); ok && end.code == websocket.CloseNormalClosure {
			return nil
		}
		return err
	}
}

func (c *gorillaClient) drop() {
	_ = c.conn.Close()
	c.drain()
}
