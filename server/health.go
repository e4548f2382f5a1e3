package server

import (
	"cmp"
	"time"

	"github.com/gofiber/fiber/v2"

	"herald/server/admin"
)

// live is GET /health/live: the process runs.
func (s *Server) live(c *fiber.Ctx) error {
	return answerJSON(c, fiber.StatusOK, map[string]string{"status": "ok"})
}

// ready is GET /health/ready: 200 if a load balancer should send clients to this node.
func (s *Server) ready(c *fiber.Ctx) error {
	if err := s.readiness(); err != nil {
		return err
	}
	return answerJSON(c, fiber.StatusOK, map[string]string{"status": "ok"})
}

func (s *Server) readiness() error {
	switch {
	case s.Hub.Draining():
		return errDraining
	case !s.Broker.Hears():
		return errNotSubscribed
	}
	return nil
}

// Readiness returns the error code and detail of GET /health/ready, "" if the node is
// ready.
func (s *Server) Readiness() (code, detail string) {
	if err := s.readiness(); err != nil {
		p := translate(err)
		return p.code, p.detail
	}
	return "", ""
}

// Counters returns what the server has counted since its start.
func (s *Server) Counters() admin.Counters {
	return admin.Counters{Started: s.started, Refused: s.refused.byStatus(), Panics: s.panics.Load()}
}

// health is GET /health: the state of the node, for people. It answers 200 while the
// process runs; load balancers use /health/ready.
func (s *Server) health(c *fiber.Ctx) error {
	sockets, users := s.Hub.Count()
	status, _ := s.Readiness()
	return answerJSON(c, fiber.StatusOK, map[string]any{
		"status":        cmp.Or(status, "ok"),
		"version":       s.o.Version,
		"uptimeSeconds": int(time.Since(s.started) / time.Second),
		"subscribed":    s.Broker.Hears(),
		"draining":      s.Hub.Draining(),
		"connections":   sockets,
		"users":         users,
		"redis":         redisInBrief(s.Redis.Status()),
	})
}
