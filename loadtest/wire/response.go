package wire

import (
	"bytes"
	"errors"
	"fmt"
)

// ErrResponse is returned for a response that this client cannot parse.
var ErrResponse = errors.New("bad HTTP response")

// Response is an HTTP/1.1 response.
type Response struct {
	Status int
	Head   []byte // status line and headers
	Body   []byte
}

// Limits of a response, in bytes.
const (
	maxHead = 16 << 10
	maxBody = 8 << 20
)

// ParseResponse returns the first response in b and its length; 0 if it is
// incomplete. It supports only bodies with Content-Length. The parts are slices of b.
func ParseResponse(b []byte) (Response, int, error) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		if len(b) > maxHead {
			return Response{}, 0, fmt.Errorf("%w: head over %d bytes", ErrResponse, maxHead)
		}
		return Response{}, 0, nil
	}
	r := Response{Head: b[:end]}
	if len(r.Head) < 12 || !bytes.HasPrefix(r.Head, []byte("HTTP/1.")) || r.Head[8] != ' ' {
		return Response{}, 0, fmt.Errorf("%w: %.40q", ErrResponse, r.Head)
	}
	var ok bool
	if r.Status, ok = number(r.Head[9:12]); !ok {
		return Response{}, 0, fmt.Errorf("%w: %.40q", ErrResponse, r.Head)
	}
	size, err := bodySize(r)
	if err != nil {
		return Response{}, 0, err
	}
	end += len("\r\n\r\n")
	if len(b) < end+size {
		return Response{}, 0, nil
	}
	r.Body = b[end : end+size]
	return r, end + size, nil
}

func bodySize(r Response) (int, error) {
	if r.Status < 200 || r.Status == 204 || r.Status == 304 {
		return 0, nil
	}
	v, ok := header(r.Head, "content-length")
	if !ok {
		return 0, fmt.Errorf("%w: no Content-Length: %.200q", ErrResponse, r.Head)
	}
	n, ok := number(v)
	if !ok || n > maxBody {
		return 0, fmt.Errorf("%w: Content-Length %.40q", ErrResponse, v)
	}
	return n, nil
}

// header returns the first value of a header; name is in lower case.
func header(head []byte, name string) ([]byte, bool) {
	for {
		i := bytes.IndexByte(head, '\n')
		if i < 0 {
			return nil, false
		}
		head = head[i+1:]
		if len(head) > len(name) && head[len(name)] == ':' && bytes.EqualFold(head[:len(name)], []byte(name)) {
			line, _, _ := bytes.Cut(head[len(name)+1:], []byte("\r"))
			return bytes.TrimSpace(line), true
		}
	}
}

// number parses up to nine digits.
func number(b []byte) (n int, ok bool) {
	if len(b) == 0 || len(b) > 9 {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}
