package server

import (
	"github.com/gofiber/fiber/v2"

	"herald/auth"
)

// routes is the route table. Every path answers 405 to methods that it does not have.
func (s *Server) routes() {
	s.app.Use(s.recover, s.secure)

	// Backends: API key or JWT with the scope.
	s.on("/notify", methods{"POST": {s.publisher(auth.ScopePublish), s.notifyOne}})
	s.on("/notify/batch", methods{"POST": {s.publisher(auth.ScopePublish), s.notifyBatch}})
	s.on("/scheduled/:id", methods{"DELETE": {s.publisher(auth.ScopePublish), s.cancelScheduled}})
	s.on("/users/:user/scheduled", methods{"GET": {s.publisher(auth.ScopePublish), s.listScheduled}})
	s.on("/sessions", methods{"POST": {s.publisher(auth.ScopeSessions), s.manage(s.createSession)}})

	// Browsers: JWT or session cookie. Before /sessions/:handle, which would match "current".
	s.user("")
	if s.o.Demo {
		s.demo()
	}

	s.on("/sessions/:handle", methods{
		"PATCH":  {s.publisher(auth.ScopeSessions), s.manage(s.updateSession)},
		"DELETE": {s.publisher(auth.ScopeSessions), s.manage(s.revokeSession)},
	})
	s.on("/users/:user/sessions", methods{
		"GET":    {s.publisher(auth.ScopeSessions), s.manage(s.listSessions)},
		"DELETE": {s.publisher(auth.ScopeSessions), s.manage(s.revokeUser)},
	})

	s.on("/users/:user/presence", methods{"GET": {s.publisher(auth.ScopePresence), s.presence}})

	// Operators and load balancers.
	s.on("/health", methods{"GET": {s.health}})
	s.on("/health/live", methods{"GET": {s.live}})
	s.on("/health/ready", methods{"GET": {s.ready}})
	s.on("/health/redis", methods{"GET": {s.redisHealth}})

	// Pages.
	s.on("/", methods{"GET": {s.page}})
	s.on("/herald.js", methods{"GET": {s.client}})
	s.on("/assets/:name", methods{"GET": {s.asset}})
}

// user registers the user's own API, for browsers, below a prefix.
func (s *Server) user(prefix string) {
	own := func(path string, m methods) {
		for name, handlers := range m {
			if handlers == nil {
				continue
			}
			m[name] = append([]fiber.Handler{s.cors}, handlers...)
		}
		m["OPTIONS"] = []fiber.Handler{s.cors, preflight}
		s.on(prefix+path, m)
	}
	own("/ws", methods{"GET": {s.ws}, "HEAD": nil})
	own("/events", methods{"GET": {s.events}, "HEAD": nil})
	own("/inbox", methods{"GET": {s.inbox}})
	own("/inbox/read", methods{"POST": {s.markRead}})
	own("/sessions/current", methods{"GET": {s.currentSession}, "DELETE": {s.logOut}})
}

type methods map[string][]fiber.Handler

// on registers a path's methods. A path with GET has HEAD too, unless its HEAD is nil: a
// stream has no headers to ask for without opening it.
func (s *Server) on(path string, m methods) {
	allow := ""
	for _, name := range []string{"GET", "POST", "PATCH", "DELETE", "OPTIONS"} {
		handlers, ok := m[name]
		if !ok {
			continue
		}
		s.app.Add(name, path, handlers...)
		if _, stream := m["HEAD"]; name == "GET" && !stream {
			s.app.Add("HEAD", path, handlers...)
			name = "GET, HEAD"
		}
		if allow != "" {
			allow += ", "
		}
		allow += name
	}
	s.app.All(path, func(c *fiber.Ctx) error {
		c.Set("Allow", allow)
		return errMethod
	})
}
