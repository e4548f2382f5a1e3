package e2e

import (
	"context"
	"errors"
	"testing"

	//lint:file-ignore SA1019 it is frozen, and that is why it is here: programs in the field use it
	nhooyr "nhooyr.io/websocket"
)

type nhooyrClient struct {
	pump
	conn   *nhooyr.Conn
	ctx    context.Context
	cancel context.CancelFunc
}

func dialNhooyr(t *testing.T, url string, header map[string]string) client {
	t.Helper()
	c := &nhooyrClient{}
	c.ctx, c.cancel = context.WithCancel(t.Context())
	conn, _, err := nhooyr.Dial(c.ctx, url, &nhooyr.DialOptions{
		HTTPClient: httpClient(t), HTTPHeader: headerOf(header), Subprotocols: []string{"herald.v1"},
		CompressionMode: nhooyr.CompressionContextTakeover,
	})
	if err != nil {
		c.cancel()
		t.Fatal(err)
	}
	c.conn = conn
	c.start(func() (string, error) {
		_, b, err := conn.Read(c.ctx)
		var end nhooyr.CloseError
		if errors.As(err, &end) {
			err = closed{int(end.Code), end.Reason}
		}
		return string(b), err
	})
	return c
}

func (c *nhooyrClient) text(text string) error { return c.raw([]byte(text)) }
func (c *nhooyrClient) raw(b []byte) error     { return c.conn.Write(c.ctx, nhooyr.MessageText, b) }
func (c *nhooyrClient) binary(b []byte) error  { return c.conn.Write(c.ctx, nhooyr.MessageBinary, b) }
func (c *nhooyrClient) ping() error            { return c.conn.Ping(c.ctx) }

// leave also checks the reader: it may receive the server's close frame before the
// library's Close, which then fails with EOF.
func (c *nhooyrClient) leave() error {
	err := c.conn.Close(nhooyr.StatusNormalClosure, "done")
	if err != nil && awaitNormalClose(c) == nil {
		return nil
	}
	return err
}

func (c *nhooyrClient) drop() {
	c.cancel()
	_ = c.conn.CloseNow()
	c.drain()
}
