package server

import (
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"

	"herald/auth"
	"herald/limiter"
	"herald/notify"
)

// publisher admits backends whose API key or JWT has the scope.
func (s *Server) publisher(scope auth.Scopes) fiber.Handler {
	return func(c *fiber.Ctx) error {
		p, err := s.Auth.Publisher(s.ctx, auth.Given(auth.ParseBearer(values(c, "Authorization"))), scope)
		if err != nil {
			return err
		}
		c.Locals(principalKey{}, p)
		return c.Next()
	}
}

type principalKey struct{}

func principal(c *fiber.Ctx) auth.Principal {
	p, _ := c.Locals(principalKey{}).(auth.Principal)
	return p
}

// limit counts cost for the subject and sets the limit's headers. It returns a 429 problem
// over the limit.
func (s *Server) limit(c *fiber.Ctx, l *limiter.Limiter, subject string, cost int) error {
	return s.limited(c, l.Allow(s.ctx, subject, cost))
}

// limited sets a limit's headers. It returns a 429 problem if the limit refuses.
func (s *Server) limited(c *fiber.Ctx, d limiter.Decision) error {
	for name, value := range d.Headers() {
		c.Set(name, value)
	}
	if d.Allowed {
		return nil
	}
	detail := "too many requests"
	if d.TooCostly {
		detail = "this costs more than the limit ever admits at once: split it"
	}
	return &problem{status: 429, code: "rate_limited", detail: detail, retryAfter: d.RetrySeconds()}
}

// visitor is the authenticated user of a browser's request whose Origin is allowed.
type visitor struct {
	auth.Principal
	since time.Time // start of the check: a later revocation closes the connection
}

// transportKind decides where a browser's request may carry credentials besides its
// headers. Only streams accept a token in the query, because a link must not act for the
// user who follows it. Only WebSockets accept one in the subprotocol.
type transportKind int

const (
	plainHTTP transportKind = iota
	overSSE
	overWebSocket
)

// visit checks the credentials and the Origin of a browser's request.
func (s *Server) visit(c *fiber.Ctx, rule auth.OriginRule, over transportKind) (visitor, error) {
	v := visitor{since: time.Now()}
	creds := auth.Credentials{
		Bearer: auth.Given(auth.ParseBearer(values(c, "Authorization"))),
		Cookie: auth.Given(auth.CookieValue(values(c, "Cookie"), s.o.Cookie)),
	}
	if over != plainHTTP {
		creds.Query = auth.Given(auth.QueryToken(queryValues(c, "token")))
	}
	if over == overWebSocket {
		token, _, err := auth.BearerSubprotocol(values(c, "Sec-WebSocket-Protocol"))
		creds.Subprotocol = auth.Given(token, token != "" || err != nil, err)
	}
	p, err := s.Auth.Authenticate(s.ctx, creds)
	if err != nil {
		return visitor{}, err
	}
	v.Principal = p
	return v, s.o.Origins.Admit(p.Method, rule, auth.Source{
		Origin: values(c, "Origin"), FetchSite: values(c, "Sec-Fetch-Site"), Self: s.self(c),
	})
}

// cors lets the pages of allowed sites read the answers (WHATWG Fetch, 3.3). It refuses
// nothing: visit checks the Origin.
func (s *Server) cors(c *fiber.Ctx) error {
	origin := values(c, "Origin")
	if len(origin) == 1 && s.o.Origins.Check(origin, s.self(c)) == nil {
		c.Set("Access-Control-Allow-Origin", origin[0])
		c.Set("Access-Control-Allow-Credentials", "true")
		c.Set("Access-Control-Expose-Headers", "Retry-After")
		c.Set("Vary", "Origin")
	}
	return c.Next()
}

// preflight answers a CORS preflight request. Without the headers that cors sets, the
// browser takes the answer as a refusal.
func preflight(c *fiber.Ctx) error {
	c.Set("Access-Control-Allow-Methods", "GET, POST, DELETE")
	c.Set("Access-Control-Allow-Headers", "Authorization, Content-Type")
	c.Set("Access-Control-Max-Age", "600")
	return c.SendStatus(fiber.StatusNoContent)
}

// self returns the origin by which the client addressed this gateway.
func (s *Server) self(c *fiber.Ctx) string {
	scheme := "http"
	if s.trusted(peer(c)) {
		if proto := lastElement(values(c, "X-Forwarded-Proto")); strings.EqualFold(proto, "https") {
			scheme = "https"
		}
	}
	return scheme + "://" + strings.Clone(string(c.Request().Header.Host()))
}

func lastElement(values []string) string {
	if len(values) == 0 {
		return ""
	}
	last := values[len(values)-1]
	return strings.TrimSpace(last[strings.LastIndexByte(last, ',')+1:])
}

func (s *Server) trusted(a netip.Addr) bool {
	for _, p := range s.o.TrustedProxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

func peer(c *fiber.Ctx) netip.Addr {
	a, _ := netip.AddrFromSlice(c.Context().RemoteIP())
	return a.Unmap()
}

// clientIP returns the client's address, beyond trusted proxies.
func (s *Server) clientIP(c *fiber.Ctx) netip.Addr {
	return limiter.ClientIP(peer(c), values(c, "X-Forwarded-For"), s.o.TrustedProxies)
}

// values returns copies of every value of a header. fasthttp reuses a request's memory
// after the answer, so only values, queryValues and param take strings out of it.
func values(c *fiber.Ctx, name string) []string { return appendValues(nil, c, name) }

func appendValues(list []string, c *fiber.Ctx, name string) []string {
	for _, v := range c.Request().Header.PeekAll(name) {
		list = append(list, string(v))
	}
	return list
}

func queryValues(c *fiber.Ctx, name string) []string {
	var list []string
	for _, v := range c.Context().QueryArgs().PeekMulti(name) {
		list = append(list, string(v))
	}
	return list
}

// Entries of a page.
const (
	defaultPage = 50
	maxPage     = 100
)

// pageLimit returns ?limit=, the most entries of a page.
func pageLimit(c *fiber.Ctx) (int, error) {
	v := queryValues(c, "limit")
	if len(v) == 0 {
		return defaultPage, nil
	}
	limit, err := strconv.Atoi(v[0])
	if err != nil || limit < 1 || limit > maxPage {
		return 0, &notify.FieldError{Field: "limit", Problem: "must be a number from 1 to 100"}
	}
	return limit, nil
}

// param returns a path parameter, unescaped once.
func param(c *fiber.Ctx, name string) (string, error) {
	v, err := url.PathUnescape(c.Params(name))
	if err != nil {
		return "", badRequest(name + " in the path is not validly escaped")
	}
	return strings.Clone(v), nil
}

// userParam returns the path's user id.
func userParam(c *fiber.Ctx) (string, error) {
	id, err := param(c, "user")
	if err == nil && !notify.ValidUserID(id) {
		err = &notify.FieldError{Field: "the user id in the path", Problem: notify.ErrUserID.Error()}
	}
	return id, err
}

// jsonBody returns the body of a request that must be JSON. It never decompresses,
// because a few bytes can expand to gigabytes. The body is valid until the answer.
func jsonBody(c *fiber.Ctx) ([]byte, error) {
	h := &c.Request().Header
	if len(h.Peek("Content-Encoding")) > 0 {
		return nil, errEncoding
	}
	mediaType, _, _ := strings.Cut(string(h.ContentType()), ";")
	if !strings.EqualFold(strings.TrimSpace(mediaType), "application/json") {
		return nil, errType
	}
	return c.Request().Body(), nil
}
