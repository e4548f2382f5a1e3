package server

import (
	"encoding/json"
	"net/http"
	"runtime"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"

	"herald/internal/redisinfo"
	"herald/notify"
)

// page is GET / of the admin listener: the dashboard.
func (p AdminPages) page(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", csp)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-cache")
	_, _ = w.Write(p.Page()) // the browser is gone or it is not
}

func (p AdminPages) asset(w http.ResponseWriter, r *http.Request) {
	body, contentType, etag, ok := p.Asset(r.PathValue("name"))
	if !ok {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("ETag", etag)
	h.Set("Cache-Control", "no-cache")
	if match := r.Header.Get("If-None-Match"); match == "*" || strings.Contains(match, etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", contentType)
	_, _ = w.Write(body)
}

// stats is GET /stats.json of the admin listener: what the dashboard shows.
// Counters run from this node's start; the page makes rates of them.
func (s *Server) stats(w http.ResponseWriter, r *http.Request) {
	body, err := json.Marshal(s.snapshot(r))
	if err != nil {
		s.o.Log.Error("request failed", "path", r.URL.Path, "error", err)
		http.Error(w, "something went wrong here; it has been logged", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(body)
}

// snapshot is everything that the dashboard shows at one moment.
type snapshot struct {
	At            time.Time `json:"at"`
	Version       string    `json:"version"`
	StartedAt     time.Time `json:"startedAt"` // another after a restart: the counters began anew
	UptimeSeconds float64   `json:"uptimeSeconds"`
	Status        string    `json:"status"` // ok, or the error of /health/ready
	Detail        string    `json:"detail,omitempty"`

	Connections int `json:"connections"`
	Users       int `json:"users"`
	Goroutines  int `json:"goroutines"`

	MemoryBytes uint64 `json:"memoryBytes"` // that the Go runtime has from the system

	Delivered  uint64 `json:"delivered"`
	Absent     uint64 `json:"absent"`
	Duplicates uint64 `json:"duplicates"`
	Repairs    uint64 `json:"repairs"`
	Repaired   uint64 `json:"repaired"`
	Gaps       uint64 `json:"gaps"`
	Dead       uint64 `json:"dead"`

	Received      uint64 `json:"received"`
	Foreign       uint64 `json:"foreign"`
	Malformed     uint64 `json:"malformed"`
	Subscriptions uint64 `json:"subscriptions"`
	Lost          uint64 `json:"lost"`

	Closed   map[string]uint64    `json:"closed"`   // by close code; those that have occurred
	Limiters map[string]decisions `json:"limiters"` // by scope
	Refused  map[string]uint64    `json:"refused"`  // by HTTP status

	Redis redisSnapshot `json:"redis"`
}

// decisions are limiter.Stats.
type decisions struct {
	Allowed    uint64 `json:"allowed"`
	Denied     uint64 `json:"denied"`
	FailedOpen uint64 `json:"failedOpen"`
}

type redisSnapshot struct {
	Up         bool                       `json:"up"`
	AgeSeconds float64                    `json:"ageSeconds"`
	Report     redisinfo.Report           `json:"report"`
	Findings   []redisinfo.Finding        `json:"findings"`
	Ratios     map[string]redisinfo.Ratio `json:"hitRatios"`
	Slow       uint64                     `json:"slowCommands"`
}

func (s *Server) snapshot(r *http.Request) snapshot {
	hub, sub := s.Hub.Stats(), s.Broker.SubscriptionStats()
	n := snapshot{
		At: time.Now(), Version: s.o.Version, StartedAt: s.started, UptimeSeconds: time.Since(s.started).Seconds(), Status: "ok",
		Goroutines: runtime.NumGoroutine(), MemoryBytes: goMemory(),
		Delivered: hub.Delivered, Absent: hub.Absent, Duplicates: hub.Duplicates,
		Repairs: hub.Repairs, Repaired: hub.Repaired, Gaps: hub.Gaps, Dead: hub.Dead,
		Received: sub.Received, Foreign: sub.Foreign, Malformed: sub.Malformed, Subscriptions: sub.Subscriptions, Lost: sub.Lost,
		Closed:   closedByCode(hub.Closed),
		Limiters: map[string]decisions{"publish": decisions(s.Publish.Stats()), "connect": decisions(s.Connect.Stats())},
		Refused:  s.refused.byStatus(),
	}
	n.Connections, n.Users = s.Hub.Count()
	if err := s.readiness(); err != nil {
		p := translate(err)
		n.Status, n.Detail = p.code, p.detail
	}
	st := s.Redis.Fresh(r.Context(), redisFresh)
	n.Redis = redisSnapshot{Up: st.Err == nil && !st.Report.At.IsZero(), AgeSeconds: st.Age().Seconds(),
		Report: st.Report, Findings: st.Findings, Ratios: st.Ratios, Slow: st.Slow}
	return n
}

// closedByCode leaves out the codes that have not occurred.
func closedByCode(counts map[notify.CloseCode]uint64) map[string]uint64 {
	closed := map[string]uint64{}
	for code, n := range counts {
		if n > 0 {
			closed[strconv.Itoa(int(code))] = n
		}
	}
	return closed
}

// goMemory is what the runtime has mapped and not given back.
func goMemory() uint64 {
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64() - samples[1].Value.Uint64()
}
