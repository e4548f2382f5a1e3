package admin

import (
	"context"
	"encoding/json"
	"net/http"
	"runtime"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"

	"herald/internal/redisinfo"
	"herald/notify"
	"herald/web"
)

// asset is GET /assets/<name>: a file of the dashboard.
func asset(w http.ResponseWriter, r *http.Request) {
	body, contentType, etag, ok := web.DashboardAsset(r.PathValue("name"))
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

// stats is GET /stats.json, which the dashboard polls. Counters start with the node; the
// page computes rates from them.
func (a *Admin) stats(w http.ResponseWriter, r *http.Request) {
	body, err := json.Marshal(a.snapshot(r.Context()))
	if err != nil {
		a.o.Log.Error("request failed", "path", r.URL.Path, "error", err)
		http.Error(w, "internal error; the log of this node has the details", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(body)
}

// snapshot is the body of /stats.json.
type snapshot struct {
	At            time.Time `json:"at"`
	Version       string    `json:"version"`
	StartedAt     time.Time `json:"startedAt"` // tells the page that the counters started anew
	UptimeSeconds float64   `json:"uptimeSeconds"`
	Status        string    `json:"status"` // ok, or the error of /health/ready
	Detail        string    `json:"detail,omitempty"`

	Connections int `json:"connections"`
	Users       int `json:"users"`
	Goroutines  int `json:"goroutines"`

	MemoryBytes uint64 `json:"memoryBytes"` // that the Go runtime holds from the system

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

	Closed   map[string]uint64    `json:"closed"`   // by close code; without those at zero
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

// redisFresh is the maximum age of the Redis report on the dashboard.
const redisFresh = time.Second

func (a *Admin) snapshot(ctx context.Context) snapshot {
	hub, sub, srv := a.Hub.Stats(), a.Broker.SubscriptionStats(), a.Server.Counters()
	n := snapshot{
		At: time.Now(), Version: a.o.Version, StartedAt: srv.Started, UptimeSeconds: time.Since(srv.Started).Seconds(), Status: "ok",
		Goroutines: runtime.NumGoroutine(), MemoryBytes: goMemory(),
		Delivered: hub.Delivered, Absent: hub.Absent, Duplicates: hub.Duplicates,
		Repairs: hub.Repairs, Repaired: hub.Repaired, Gaps: hub.Gaps, Dead: hub.Dead,
		Received: sub.Received, Foreign: sub.Foreign, Malformed: sub.Malformed, Subscriptions: sub.Subscriptions, Lost: sub.Lost,
		Closed:   closedByCode(hub.Closed),
		Limiters: map[string]decisions{"publish": decisions(a.Publish.Stats()), "connect": decisions(a.Connect.Stats())},
		Refused:  srv.Refused,
	}
	n.Connections, n.Users = a.Hub.Count()
	if code, detail := a.Server.Readiness(); code != "" {
		n.Status, n.Detail = code, detail
	}
	st := a.Redis.Fresh(ctx, redisFresh)
	n.Redis = redisSnapshot{Up: st.Err == nil && !st.Report.At.IsZero(), AgeSeconds: st.Age().Seconds(),
		Report: st.Report, Findings: st.Findings, Ratios: st.Ratios, Slow: st.Slow}
	return n
}

// closedByCode omits the codes that have not occurred.
func closedByCode(counts map[notify.CloseCode]uint64) map[string]uint64 {
	closed := map[string]uint64{}
	for code, n := range counts {
		if n > 0 {
			closed[strconv.Itoa(int(code))] = n
		}
	}
	return closed
}

// goMemory returns the bytes that the Go runtime has mapped and not returned to the system.
func goMemory() uint64 {
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64() - samples[1].Value.Uint64()
}
