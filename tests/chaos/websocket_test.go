package chaos

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/gorilla/websocket"
)

// webSocketFraming uses another library than the gateway, so that no mistake of
// one is made on both sides.
type webSocketFraming struct {
	conn *websocket.Conn
	tcp  *net.TCPConn
}

func dialWebSocket(ctx context.Context, addr, token string, since int64) (wire, error) {
	dialer := websocket.Dialer{HandshakeTimeout: deadAfter, Subprotocols: []string{"herald.v1"}}
	conn, resp, err := dialer.DialContext(ctx, "ws://"+addr+"/ws"+sinceQuery(since), http.Header{"Authorization": {"Bearer " + token}})
	if err != nil {
		if resp != nil {
			return nil, errRefused{resp.StatusCode}
		}
		return nil, fmt.Errorf("dial: %w", err)
	}
	w := &webSocketFraming{conn: conn, tcp: conn.NetConn().(*net.TCPConn)}
	conn.SetPingHandler(func(data string) error {
		w.expect()
		_ = conn.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(time.Second))
		return nil // a connection that can't be written to ends where it is read
	})
	return w, nil
}

func sinceQuery(since int64) string {
	if since == unset {
		return ""
	}
	return "?" + url.Values{"since": {strconv.FormatInt(since, 10)}}.Encode()
}

// expect renews the read deadline.
func (w *webSocketFraming) expect() { _ = w.tcp.SetReadDeadline(time.Now().Add(deadAfter)) }

func (w *webSocketFraming) next() (frame, error) {
	w.expect()
	_, text, err := w.conn.ReadMessage()
	if err != nil {
		return frame{}, err
	}
	return parseFrame(text, unset)
}

func (w *webSocketFraming) leave() {
	goodbye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	if err := w.conn.WriteControl(websocket.CloseMessage, goodbye, time.Now().Add(time.Second)); err != nil {
		w.abort()
	}
}

func (w *webSocketFraming) abort() {
	_ = w.tcp.SetLinger(0)
	_ = w.tcp.Close()
}
