package wire

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"
)

// Every handshake uses the example key of RFC 6455, 1.3, and its known answer.
const (
	handshakeKey    = "dGhlIHNhbXBsZSBub25jZQ=="
	handshakeAnswer = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
)

// Upgrade returns the request that opens a WebSocket. headers are lines "Name: value".
func Upgrade(host, target string, headers ...string) []byte {
	b := request("GET", host, target)
	b = append(b, "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "+handshakeKey+"\r\n"...)
	return append(appendLines(b, headers), "\r\n"...)
}

// Upgraded returns an error unless the response completes the handshake.
func Upgraded(r Response) error {
	if r.Status != http.StatusSwitchingProtocols {
		return fmt.Errorf("upgrade refused: %d %.200s", r.Status, bytes.TrimSpace(r.Body))
	}
	if v, _ := header(r.Head, "sec-websocket-accept"); string(v) != handshakeAnswer {
		return fmt.Errorf("upgrade: Sec-WebSocket-Accept %.40q", v)
	}
	return nil
}

// Post returns a request with a body. headers are lines "Name: value".
func Post(host, target string, body []byte, headers ...string) []byte {
	b := appendLines(request("POST", host, target), headers)
	b = append(b, "Content-Length: "...)
	b = strconv.AppendInt(b, int64(len(body)), 10)
	b = append(b, "\r\n\r\n"...)
	return append(b, body...)
}

func request(method, host, target string) []byte {
	return []byte(method + " " + target + " HTTP/1.1\r\nHost: " + host + "\r\n")
}

func appendLines(b []byte, lines []string) []byte {
	for _, line := range lines {
		b = append(b, line...)
		b = append(b, "\r\n"...)
	}
	return b
}

// SwitchingProtocols is the response to Upgrade.
var SwitchingProtocols = []byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Accept: " + handshakeAnswer + "\r\n\r\n")
