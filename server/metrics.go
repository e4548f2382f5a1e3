package server

import (
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"herald/limiter"
)

// metricsHandler serves every counter of every room in Prometheus's text
// format. The rooms count by themselves and know nothing of Prometheus: this is
// the only file that does.
func metricsHandler(s *Server) http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(collector{s}, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{})
}

type collector struct{ s *Server }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("herald_"+name, help, labels, nil)
}

var (
	descConnections   = desc("connections", "Open connections on this node.")
	descUsers         = desc("users", "Users with an open connection on this node.")
	descReady         = desc("ready", "1 while this node hears its own subscription and is not draining.")
	descDelivered     = desc("messages_delivered_total", "Messages given to a socket: messages times sockets.")
	descAbsent        = desc("messages_absent_total", "Messages for users who are not on this node.")
	descDuplicates    = desc("messages_duplicate_total", "Messages that the user's sockets already had.")
	descRepairs       = desc("repairs_total", "Times a user's stream was read from the log to fill a hole.")
	descRepaired      = desc("messages_repaired_total", "Messages delivered by repairs.")
	descGaps          = desc("gaps_total", "Times clients were told that something cannot be had here.")
	descDead          = desc("connections_dead_total", "Connections ended because the peer was gone.")
	descClosed        = desc("connections_closed_total", "Connections closed by the gateway, by close code.", "code")
	descReceived      = desc("subscription_messages_total", "Messages received over the subscription, canaries included.")
	descForeign       = desc("subscription_foreign_total", "Messages of other programs, delivered as ephemeral.")
	descMalformed     = desc("subscription_malformed_total", "Published messages that were dropped.")
	descSubscriptions = desc("subscriptions_total", "Times the subscription was made.")
	descLost          = desc("subscriptions_lost_total", "Times the subscription broke or fell silent.")
	descLimited       = desc("limiter_decisions_total", "Decisions of the rate limiters.", "scope", "decision")
	descRefused       = desc("http_refused_total", "Requests answered with an error, by status.", "status")
	descCache         = desc("cache_total", "What the caches did: hit, stale and miss are answers; wait, load, load_error, redis_error, late and skipped what they took.", "cache", "outcome")
	descRecipients    = desc("recipients_total", "Notifications by what their recipients wanted; failed_open: delivered because that was not known.", "decision")
	descPanics        = desc("panics_total", "Panics that were contained.")
)

// Describe sends nothing: the collector is unchecked, its metrics are below.
func (collector) Describe(chan<- *prometheus.Desc) {}

func (c collector) Collect(ch chan<- prometheus.Metric) {
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v)
	}
	sockets, users := c.s.Hub.Count()
	gauge(descConnections, float64(sockets))
	gauge(descUsers, float64(users))
	ready := 0.0
	if c.s.readiness() == nil {
		ready = 1
	}
	gauge(descReady, ready)

	h := c.s.Hub.Stats()
	count(descDelivered, h.Delivered)
	count(descAbsent, h.Absent)
	count(descDuplicates, h.Duplicates)
	count(descRepairs, h.Repairs)
	count(descRepaired, h.Repaired)
	count(descGaps, h.Gaps)
	count(descDead, h.Dead)
	for code, n := range h.Closed {
		count(descClosed, n, strconv.Itoa(int(code)))
	}

	sub := c.s.Broker.SubscriptionStats()
	count(descReceived, sub.Received)
	count(descForeign, sub.Foreign)
	count(descMalformed, sub.Malformed)
	count(descSubscriptions, sub.Subscriptions)
	count(descLost, sub.Lost)

	for scope, l := range map[string]*limiter.Limiter{"publish": c.s.Publish, "connect": c.s.Connect} {
		st := l.Stats()
		count(descLimited, st.Allowed, scope, "allowed")
		count(descLimited, st.Denied, scope, "denied")
		count(descLimited, st.FailedOpen, scope, "failed_open")
	}
	for name, stats := range c.s.Caches {
		st := stats()
		for outcome, n := range map[string]uint64{
			"hit": st.Hits, "stale": st.Stale, "miss": st.Misses, "wait": st.Waits, "load": st.Loads,
			"load_error": st.LoadErrors, "redis_error": st.RedisErrors, "late": st.Late, "skipped": st.Skipped,
		} {
			count(descCache, n, name, outcome)
		}
	}
	if c.s.Recipients != nil {
		st := c.s.Recipients.Stats()
		for decision, n := range map[string]uint64{
			"muted": st.Muted, "quiet": st.Quiet, "skipped_quiet": st.SkippedQuiet, "wanted": st.Wanted, "failed_open": st.FailedOpen,
		} {
			count(descRecipients, n, decision)
		}
	}
	r := &c.s.refused
	count(descRefused, r.unauthorized.Load(), "401")
	count(descRefused, r.forbidden.Load(), "403")
	count(descRefused, r.limited.Load(), "429")
	count(descRefused, r.internal.Load(), "500")
	count(descRefused, r.unavailable.Load(), "503")
	count(descRefused, r.other.Load(), "other")
	count(descPanics, c.s.panics.Load())
}
