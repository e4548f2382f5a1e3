package server

import (
	"time"

	"github.com/gofiber/fiber/v2"

	"herald/internal/redisinfo"
)

// redisFresh is the maximum age of the Redis report in an answer.
const redisFresh = time.Second

// redisHealth is GET /health/redis: 503 while Redis is down. It is public, so it names no
// address.
func (s *Server) redisHealth(c *fiber.Ctx) error {
	latency, err := s.Redis.Ping(s.ctx)
	if err != nil {
		if s.outage.Allow() {
			s.o.Log.Warn("Redis health", "error", err)
		}
		return errUnavailable
	}
	st := s.Redis.Fresh(s.ctx, redisFresh)
	body := redisHealthBody{Status: "ok", LatencyMs: milliseconds(latency), AgeSeconds: st.Age().Seconds(), SlowCommands: st.Slow,
		Warnings: warnings(st.Findings), NotPermitted: st.Report.Refused}
	body.describe(st)
	return answerJSON(c, fiber.StatusOK, body)
}

// redisHealthBody omits values that Redis does not report.
type redisHealthBody struct {
	Status            string   `json:"status"`
	LatencyMs         float64  `json:"latencyMs"`  // round trip of this request
	AgeSeconds        float64  `json:"ageSeconds"` // of the values below
	ClockDifferenceMs *float64 `json:"clockDifferenceMs,omitempty"`

	*redisFigures
	SubscriberBufferBytes *int64 `json:"subscriberBufferBytes,omitempty"` // output buffer of this node's subscription
	SlowCommands          uint64 `json:"slowCommands"`                    // since the start of this node

	Warnings     []redisWarning `json:"warnings"`
	NotPermitted []string       `json:"notPermitted,omitempty"`
}

// redisFigures are from INFO.
type redisFigures struct {
	Version          string          `json:"version"`
	Role             string          `json:"role"`
	UsedMemory       string          `json:"usedMemory"`
	UsedMemoryBytes  int64           `json:"usedMemoryBytes"`
	MaxMemoryBytes   int64           `json:"maxMemoryBytes"`
	MaxMemoryPolicy  string          `json:"maxMemoryPolicy"`
	Keys             int64           `json:"keys"`
	EvictedKeys      int64           `json:"evictedKeys"`
	ExpiredKeys      int64           `json:"expiredKeys"`
	ConnectedClients int64           `json:"connectedClients"`
	MaxClients       int64           `json:"maxClients,omitempty"`
	HitRatio         *float64        `json:"hitRatio,omitempty"` // of the last ten minutes, after enough lookups
	AOFEnabled       bool            `json:"aofEnabled"`
	LastSaveStatus   string          `json:"lastSaveStatus,omitempty"`
	Loading          bool            `json:"loading"`
	Replicas         []replicaHealth `json:"replicas,omitempty"`
}

type replicaHealth struct {
	State      string  `json:"state"`
	LagSeconds float64 `json:"lagSeconds"`
	LagBytes   int64   `json:"lagBytes"`
}

type redisWarning struct {
	Check  string          `json:"check"`
	Level  redisinfo.Level `json:"level"`
	Advice string          `json:"advice"`
}

func (b *redisHealthBody) describe(st redisinfo.Status) {
	r := st.Report
	if r.Clock != nil {
		ms := milliseconds(*r.Clock)
		b.ClockDifferenceMs = &ms
	}
	if r.Subscribers != nil {
		b.SubscriberBufferBytes = &r.Subscribers.Own
	}
	i := r.Info
	if i == nil {
		return
	}
	b.redisFigures = &redisFigures{
		Version: i.Version, Role: i.Role,
		UsedMemory: redisinfo.Bytes(i.UsedMemory), UsedMemoryBytes: i.UsedMemory, MaxMemoryBytes: i.MaxMemory, MaxMemoryPolicy: i.Policy,
		Keys: i.Keys, EvictedKeys: i.EvictedKeys, ExpiredKeys: i.ExpiredKeys, ConnectedClients: i.Clients, MaxClients: i.MaxClients,
		AOFEnabled: i.AOF, LastSaveStatus: i.Save, Loading: i.Loading,
	}
	if share, ok := st.Ratios[redisinfo.Keyspace].Share(); ok {
		b.HitRatio = &share
	}
	for _, replica := range i.Replicas {
		b.Replicas = append(b.Replicas, replicaHealth{replica.State, replica.Lag.Seconds(), replica.Bytes})
	}
}

// warnings returns the findings that advise a change.
func warnings(found []redisinfo.Finding) []redisWarning {
	list := []redisWarning{}
	for _, f := range found {
		if f.Level >= redisinfo.Warn {
			list = append(list, redisWarning{f.Name, f.Level, f.Advice})
		}
	}
	return list
}

// redisInBrief is Redis's part of /health, from the last report.
func redisInBrief(st redisinfo.Status) map[string]any {
	status := "ok"
	switch {
	case st.Err != nil:
		status = "unavailable"
	case st.Report.At.IsZero():
		status = "unknown"
	}
	return map[string]any{"status": status, "ageSeconds": st.Age().Seconds(), "warnings": len(warnings(st.Findings))}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
