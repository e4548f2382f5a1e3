package server

import (
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"

	"herald/auth"
	"herald/web"
)

// page is GET /: the demo page.
func (s *Server) page(c *fiber.Ctx) error {
	c.Set("Content-Security-Policy", web.CSP)
	c.Set("Referrer-Policy", "no-referrer")
	c.Set("Content-Type", "text/html; charset=utf-8")
	c.Set("Cache-Control", "no-cache")
	return c.Send(web.Page(s.o.Demo))
}

// client is GET /herald.js: the browser client, loadable from any allowed site.
func (s *Server) client(c *fiber.Ctx) error {
	c.Set("Access-Control-Allow-Origin", "*") // a public file, sent without credentials
	return s.send(c, "herald.js")
}

func (s *Server) asset(c *fiber.Ctx) error { return s.send(c, c.Params("name")) }

func (s *Server) send(c *fiber.Ctx, name string) error {
	body, contentType, etag, ok := web.Asset(name)
	if !ok {
		return errNotFound
	}
	c.Set("ETag", etag)
	c.Set("Cache-Control", "no-cache")
	if match := c.Get("If-None-Match"); match == "*" || strings.Contains(match, etag) {
		return c.SendStatus(fiber.StatusNotModified)
	}
	c.Set("Content-Type", contentType)
	return c.Send(body)
}

// demoPrefix is the path of a demo user. The session cookie is scoped to it, so that two
// tabs of one browser can be two users.
const demoPrefix = "/demo/as/:user"

// demo registers the demo's routes, on which anyone can log in as anyone and send to
// anyone.
func (s *Server) demo() {
	s.on("/demo/login", methods{"POST": {s.manage(s.demoLogin)}})
	s.on(demoPrefix+"/", methods{"GET": {s.page}})
	s.on(demoPrefix+"/notify", methods{"POST": {s.demoNotify}})
	s.on(demoPrefix+"/sessions", methods{"DELETE": {s.manage(s.demoLogOutEverywhere)}})
	s.user(demoPrefix)
}

func (s *Server) demoLogin(c *fiber.Ctx, m SessionManager) error {
	if err := s.limit(c, s.Connect, "demo", 1); err != nil {
		return err
	}
	if err := s.o.Origins.Check(values(c, "Origin"), s.self(c)); err != nil {
		return err
	}
	r, err := newSession(c)
	if err != nil {
		return err
	}
	id, session, err := m.Create(s.ctx, r.UserID, nil)
	if err != nil {
		return err
	}
	path := "/demo/as/" + r.UserID + "/" // a user id needs no escaping in a path
	s.setCookie(c, id, path, session.AbsoluteExpiresAt)
	return answerJSON(c, fiber.StatusOK, map[string]string{"userId": r.UserID, "path": path})
}

// demoNotify is POST /notify for a logged-in demo user.
func (s *Server) demoNotify(c *fiber.Ctx) error {
	v, err := s.visit(c, auth.OriginRequired, plainHTTP)
	if err != nil {
		return err
	}
	c.Locals(principalKey{}, v.Principal)
	return s.notifyOne(c)
}

func (s *Server) demoLogOutEverywhere(c *fiber.Ctx, m SessionManager) error {
	v, err := s.visit(c, auth.OriginRequired, plainHTTP)
	if err != nil {
		return err
	}
	s.setCookie(c, "", "/demo/as/"+v.UserID+"/", time.Unix(1, 0))
	return s.revokeAll(c, m, v.UserID)
}
