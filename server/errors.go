package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/gofiber/fiber/v2"
	"github.com/valyala/fasthttp"

	"herald/auth"
	"herald/broker"
	"herald/hub"
	"herald/internal/redisx"
	"herald/internal/schedule"
	"herald/notify"
	"herald/patterns/idempotent"
	"herald/sessions"
)

// problem is an error as the client sees it: application/problem+json (RFC 9457).
type problem struct {
	status     int
	code       string // the short, stable error of the body
	detail     string
	retryAfter int // seconds; 0: no Retry-After
}

func (p *problem) Error() string { return p.code + ": " + p.detail }

// Problems without variable parts.
var (
	errNotFound      = &problem{status: 404, code: "not_found", detail: "there is nothing at this path"}
	errMethod        = &problem{status: 405, code: "method_not_allowed", detail: "this path does not support this method; see Allow"}
	errEncoding      = &problem{status: 415, code: "unsupported_encoding", detail: "Content-Encoding is not supported: send the body uncompressed"}
	errType          = &problem{status: 415, code: "unsupported_media_type", detail: "Content-Type must be application/json"}
	errBody          = &problem{status: 413, code: "too_large", detail: "the body is larger than 1 MiB"}
	errHead          = &problem{status: 431, code: "header_too_large", detail: "the request's head is larger than 16 KiB"}
	errDraining      = &problem{status: 503, code: "draining", detail: "this node is shutting down", retryAfter: 1}
	errOverloaded    = &problem{status: 503, code: "overloaded", detail: "this node has reached its maximum of connections", retryAfter: 5}
	errNotSubscribed = &problem{status: 503, code: "unavailable", detail: "this node has lost its subscription to Redis", retryAfter: 1}
	errUnavailable   = &problem{status: 503, code: "unavailable", detail: "Redis is not available", retryAfter: 1}
	errSession       = &problem{status: 404, code: "not_found", detail: "this session does not exist, or has ended"}
	errScheduled     = &problem{status: 404, code: "not_found", detail: "this scheduled notification does not exist: it was delivered, cancelled or never scheduled"}
	errRunning       = &problem{status: 409, code: "idempotency_in_progress", detail: "the first request with this Idempotency-Key is still running", retryAfter: 1}
	errInternal      = &problem{status: 500, code: "internal", detail: "internal error; the log of this node has the details"}
)

func badRequest(detail string) *problem {
	return &problem{status: 400, code: "bad_request", detail: detail}
}

// translate is the only table from errors to answers.
func translate(err error) *problem {
	var p *problem
	var field *notify.FieldError
	var full *schedule.FullError
	var running *idempotent.RunningError
	var httpErr *fiber.Error
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &field) && field.Size:
		return &problem{status: 413, code: "too_large", detail: field.Error()}
	case errors.As(err, &field):
		return badRequest(field.Error())
	case errors.Is(err, auth.ErrNoCredentials), errors.Is(err, auth.ErrCredentials):
		return &problem{status: 401, code: "unauthorized", detail: auth.Detail(err)}
	case errors.Is(err, auth.ErrTwoUsers):
		return &problem{status: 400, code: "two_users", detail: auth.Detail(err)}
	case errors.Is(err, auth.ErrTwoOrigins):
		return &problem{status: 400, code: "bad_request", detail: auth.Detail(err)}
	case errors.Is(err, auth.ErrScope):
		return &problem{status: 403, code: "insufficient_scope", detail: auth.Detail(err)}
	case errors.Is(err, auth.ErrNoOrigin), errors.Is(err, auth.ErrOrigin):
		return &problem{status: 403, code: "origin_not_allowed", detail: auth.Detail(err)}
	case errors.Is(err, sessions.ErrNotFound):
		return errSession
	case errors.Is(err, sessions.ErrData):
		return badRequest(err.Error())
	case errors.Is(err, schedule.ErrNotFound):
		return errScheduled
	case errors.As(err, &full):
		return &problem{status: 409, code: "schedule_full", detail: full.Error() + ": cancel some, or wait"}
	case errors.As(err, &running), errors.Is(err, idempotent.ErrSuperseded), errors.Is(err, schedule.ErrFenced):
		return errRunning
	case errors.Is(err, broker.ErrMismatch), errors.Is(err, idempotent.ErrMismatch):
		return &problem{status: 422, code: "idempotency_mismatch", detail: "this Idempotency-Key was used before with another request"}
	case errors.Is(err, redisx.ErrUnavailable), errors.Is(err, auth.ErrUnavailable), errors.Is(err, idempotent.ErrUnavailable):
		return errUnavailable
	case errors.Is(err, hub.ErrDraining):
		return errDraining
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		return errBody
	case errors.As(err, &httpErr):
		return fromHTTP(httpErr)
	}
	return errInternal
}

// fromHTTP translates errors of Fiber and fasthttp. It drops their texts, which quote
// parts of the request.
func fromHTTP(err *fiber.Error) *problem {
	switch err.Code {
	case http.StatusRequestEntityTooLarge:
		return errBody
	case http.StatusRequestHeaderFieldsTooLarge:
		return errHead
	case http.StatusNotFound:
		return errNotFound
	case http.StatusMethodNotAllowed:
		return errMethod
	case http.StatusRequestTimeout:
		return &problem{status: 408, code: "timeout", detail: "the request did not arrive in time"}
	case http.StatusInternalServerError:
		return errInternal
	}
	return &problem{status: 400, code: "bad_request", detail: "the request is not valid HTTP"}
}

// fail is the error handler: it answers a request with the problem of its error.
func (s *Server) fail(c *fiber.Ctx, err error) error {
	p := translate(err)
	switch p {
	case errInternal:
		s.o.Log.Error("request failed", "path", c.Path(), "error", err)
	case errUnavailable:
		if s.outage.Allow() {
			s.o.Log.Warn("answered 503", "path", c.Path(), "error", err)
		}
	}
	if challenge := auth.Challenge(err); challenge != "" {
		c.Set("WWW-Authenticate", challenge)
	}
	s.answerProblem(c.Context(), p)
	return nil
}

func (s *Server) answerProblem(c *fasthttp.RequestCtx, p *problem) {
	s.refused.count(p.status)
	if p.retryAfter > 0 {
		c.Response.Header.Set("Retry-After", strconv.Itoa(p.retryAfter))
	}
	body := problemBody{Type: "about:blank", Title: http.StatusText(p.status), Status: p.status, Detail: p.detail, Error: p.code}
	if p.status == http.StatusTooManyRequests {
		body.RetryAfter = p.retryAfter
	}
	b, _ := json.Marshal(body) // strings and integers: cannot fail
	c.Response.Header.Set("Content-Type", "application/problem+json")
	c.Response.Header.Set("Cache-Control", "no-store")
	c.SetStatusCode(p.status)
	c.SetBody(b)
}

type problemBody struct {
	Type       string `json:"type"`
	Title      string `json:"title"`
	Status     int    `json:"status"`
	Detail     string `json:"detail"`
	Error      string `json:"error"`
	RetryAfter int    `json:"retryAfter,omitempty"` // seconds
}

// answerJSON answers with v as JSON.
func answerJSON(c *fiber.Ctx, status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	c.Status(status)
	return sendJSON(c, body)
}

// sendJSON answers with a JSON text.
func sendJSON(c *fiber.Ctx, body []byte) error {
	c.Set("Content-Type", "application/json")
	c.Set("Cache-Control", "no-store")
	return c.Send(body)
}

// recover turns a panic of a handler into a 500 answer.
func (s *Server) recover(c *fiber.Ctx) (err error) {
	defer func() {
		if v := recover(); v != nil {
			s.panicked("handler", v)
			err = errInternal
		}
	}()
	return c.Next()
}

func (s *Server) panicked(where string, v any) {
	s.panics.Add(1)
	s.o.Log.Error("panic", "where", where, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
}

// secure sets the header that every answer has.
func (s *Server) secure(c *fiber.Ctx) error {
	c.Set("X-Content-Type-Options", "nosniff")
	return c.Next()
}

// refusals counts error answers, separately for the statuses that deserve an alert.
type refusals struct{ unauthorized, forbidden, limited, unavailable, internal, other atomic.Uint64 }

func (r *refusals) count(status int) {
	switch status {
	case 401:
		r.unauthorized.Add(1)
	case 403:
		r.forbidden.Add(1)
	case 429:
		r.limited.Add(1)
	case 503:
		r.unavailable.Add(1)
	case 500:
		r.internal.Add(1)
	default:
		r.other.Add(1)
	}
}

// byStatus returns the counts by the status label of the metric.
func (r *refusals) byStatus() map[string]uint64 {
	return map[string]uint64{
		"401": r.unauthorized.Load(), "403": r.forbidden.Load(), "429": r.limited.Load(),
		"500": r.internal.Load(), "503": r.unavailable.Load(), "other": r.other.Load(),
	}
}

// redact cuts fasthttp's message before the first line break or quote, which may begin
// a part of a request.
func redact(format string, args []any) string {
	line := fmt.Sprintf(format, args...)
	if i := strings.IndexAny(line, "\r\n\""); i >= 0 {
		line = line[:i] + "…"
	}
	return line
}
