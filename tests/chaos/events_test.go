package chaos

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// eventsWire reads server-sent events (WHATWG HTML, 9.2) from a connection of its own.
type eventsWire struct {
	tcp   *net.TCPConn
	lines *bufio.Scanner
}

// maxLine is more than the longest frame.
const maxLine = 1 << 20

func dialEvents(ctx context.Context, addr, token string, since int64) (wire, error) {
	d := net.Dialer{Timeout: deadAfter}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	w := &eventsWire{tcp: conn.(*net.TCPConn)}
	if err := w.ask(addr, token, since); err != nil {
		w.abort()
		return nil, err
	}
	return w, nil
}

// ask sends the request of an EventSource that reconnects.
func (w *eventsWire) ask(addr, token string, since int64) error {
	req, err := http.NewRequest("GET", "http://"+addr+"/events", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Accept", "text/event-stream")
	if since != unset {
		req.Header.Set("Last-Event-ID", strconv.FormatInt(since, 10))
	}
	_ = w.tcp.SetDeadline(time.Now().Add(deadAfter))
	if err := req.Write(w.tcp); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(w.tcp), req)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return errRefused{resp.StatusCode}
	}
	w.lines = bufio.NewScanner(resp.Body)
	w.lines.Buffer(nil, maxLine)
	return w.tcp.SetDeadline(time.Time{})
}

func (w *eventsWire) next() (frame, error) {
	var data []string
	resume := int64(unset)
	for {
		_ = w.tcp.SetReadDeadline(time.Now().Add(deadAfter))
		if !w.lines.Scan() {
			if err := w.lines.Err(); err != nil {
				return frame{}, err
			}
			return frame{}, errors.New("end of stream")
		}
		name, value, _ := strings.Cut(w.lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case w.lines.Text() == "" && data != nil:
			return parseFrame([]byte(strings.Join(data, "\n")), resume)
		case name == "data":
			data = append(data, value)
		case name == "id":
			var err error
			if resume, err = strconv.ParseInt(value, 10, 64); err != nil {
				return frame{}, fmt.Errorf("id of an event: %w", err)
			}
		}
	}
}

// leave closes the connection, as EventSource.close does.
func (w *eventsWire) leave() { _ = w.tcp.Close() }

func (w *eventsWire) abort() {
	_ = w.tcp.SetLinger(0)
	_ = w.tcp.Close()
}
