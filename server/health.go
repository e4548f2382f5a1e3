package server

import (
	"time"

	"github.com/gofiber/fiber/v2"
)

// live is GET /health/live: the process runs.
func (s *Server) live(c *fiber.Ctx) error {
	return answerJSON(c, fiber.StatusOK, map[string]string{"status": "ok"})
}

// ready is GET /health/ready: whether a load balancer should send clients here.
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
		return errDeaf
	}
	return nil
}

// health is GET /health: all there is to say, for people. 200 as long as the
// process runs; load balancers ask /health/ready.
func (s *Server) health(c *fiber.Ctx) error {
	sockets, users := s.Hub.Count()
	status := "ok"
	if err := s.readiness(); err != nil {
		status = translate(err).code
	}
	return answerJSON(c, fiber.StatusOK, map[string]any{
		"status":        status,
		"version":       s.o.Version,
		"uptimeSeconds": int(time.Since(s.started) / time.Second),
		"subscribed":    s.Broker.Hears(),
		"draining":      s.Hub.Draining(),
		"connections":   sockets,
		"users":         users,
	})
}

// redisHealth is GET /health/redis.
func (s *Server) redisHealth(c *fiber.Ctx) error {
	latency, info, err := s.Redis(s.ctx)
	if err != nil {
		s.o.Log.Warn("Redis health", "error", err)
		return errUnavailable
	}
	return answerJSON(c, fiber.StatusOK, redisHealthBody{
		Status: "ok", LatencyMs: float64(latency.Microseconds()) / 1000,
		Version: info["redis_version"], UsedMemory: info["used_memory_human"], MaxMemory: info["maxmemory_human"],
		MaxMemoryPolicy: info["maxmemory_policy"], ConnectedClients: info["connected_clients"], Role: info["role"],
		AOF: info["aof_enabled"], LastSave: info["rdb_last_bgsave_status"],
	})
}

// redisHealthBody is in Redis's own words; what it doesn't tell is left out.
type redisHealthBody struct {
	Status           string  `json:"status"`
	LatencyMs        float64 `json:"latencyMs"`
	Version          string  `json:"version,omitempty"`
	UsedMemory       string  `json:"usedMemory,omitempty"`
	MaxMemory        string  `json:"maxMemory,omitempty"`
	MaxMemoryPolicy  string  `json:"maxMemoryPolicy,omitempty"`
	ConnectedClients string  `json:"connectedClients,omitempty"`
	Role             string  `json:"role,omitempty"`
	AOF              string  `json:"aofEnabled,omitempty"`
	LastSave         string  `json:"lastSaveStatus,omitempty"`
}
