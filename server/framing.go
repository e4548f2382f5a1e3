package server

import (
	"bytes"
	"errors"
	"strings"

	"github.com/valyala/fasthttp"

	"herald/auth"
)

// front refuses some requests before the router, whose answers do not have our format.
func (s *Server) front(next fasthttp.RequestHandler) fasthttp.RequestHandler {
	return func(c *fasthttp.RequestCtx) {
		switch {
		case ambiguous(&c.Request.Header):
			c.SetConnectionClose() // the bytes behind it may belong to either reading
			s.answerProblem(c, errFraming)
		case !knownMethod(c.Method()):
			s.answerProblem(c, errUnknownMethod)
		default:
			next(c)
		}
	}
}

var (
	errFraming       = badRequest("the request's length is ambiguous: Transfer-Encoding must be chunked, and without Content-Length")
	errUnknownMethod = &problem{status: 501, code: "method_not_implemented", detail: "this server does not support the method"}
)

func knownMethod(m []byte) bool {
	switch string(m) {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE":
		return true
	}
	return false
}

// ambiguous reports whether two parsers could see the request's end in different
// places (RFC 9112, 6.3 and 11.2): a Transfer-Encoding other than chunked, or one beside
// a Content-Length. fasthttp accepts some of these, so this reads the raw head.
func ambiguous(h *fasthttp.RequestHeader) bool {
	raw := h.RawHeaders()
	if !containsFold(raw, "transfer-encoding") {
		return false
	}
	encodings, lengths := 0, 0
	for line := range bytes.Lines(raw) {
		name, value, _ := strings.Cut(string(line), ":")
		switch strings.ToLower(strings.Trim(name, " \t\r\n")) {
		case "transfer-encoding":
			encodings++
			if !strings.EqualFold(strings.Trim(value, " \t\r\n"), "chunked") {
				return true
			}
		case "content-length":
			lengths++
		}
	}
	return encodings > 1 || encodings == 1 && lengths > 0
}

// containsFold reports whether b holds the lower-case ASCII text s in any case.
func containsFold(b []byte, s string) bool {
	for i := 0; i+len(s) <= len(b); i++ {
		if b[i]|0x20 == s[0] && strings.EqualFold(string(b[i:i+len(s)]), s) {
			return true
		}
	}
	return false
}

// smallBody is the maximum body of an unauthenticated request, in bytes. A backend's key
// or token is checked before its body is read, so it may send more.
const smallBody = 64 << 10

// bodyLimit is called when a request's head has been read. fasthttp then allocates
// Content-Length bytes at once.
func (s *Server) bodyLimit(h *fasthttp.RequestHeader) fasthttp.RequestConfig {
	if n := h.ContentLength(); n >= 0 && n <= smallBody {
		return fasthttp.RequestConfig{}
	}
	token, present, err := auth.ParseBearer([]string{string(h.Peek("Authorization"))})
	_, err = s.Auth.Publisher(s.ctx, auth.Given(token, present, err), auth.ScopePublish)
	if err == nil || errors.Is(err, auth.ErrScope) {
		return fasthttp.RequestConfig{}
	}
	return fasthttp.RequestConfig{MaxRequestBodySize: smallBody}
}
