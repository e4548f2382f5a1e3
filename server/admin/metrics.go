package admin

import (
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"herald/internal/redisinfo"
	"herald/internal/schedule"
	"herald/limiter"
)

// metricsHandler serves the counters of all packages in Prometheus's text format. The
// packages count with plain numbers; only this file depends on Prometheus.
func metricsHandler(d Deps) http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(collector{d}, redisCollector{d.Redis}, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{})
}

type collector struct{ Deps }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("herald_"+name, help, labels, nil)
}

var (
	descConnections   = desc("connections", "Open connections on this node.")
	descUsers         = desc("users", "Users with an open connection on this node.")
	descReady         = desc("ready", "1 while this node receives its own canary and is not draining.")
	descDelivered     = desc("messages_delivered_total", "Messages written to sockets, once for each socket.")
	descAbsent        = desc("messages_absent_total", "Messages for users without a connection on this node.")
	descDuplicates    = desc("messages_duplicate_total", "Messages that were dropped because the user's sockets had received them.")
	descRepairs       = desc("repairs_total", "Reads of a user's log to fill a gap.")
	descRepaired      = desc("messages_repaired_total", "Messages delivered by repairs.")
	descGaps          = desc("gaps_total", "Gap frames: notifications that the log no longer has.")
	descShed          = desc("messages_shed_total", "Ephemeral messages dropped because the queue for a user's connections was full.")
	descDead          = desc("connections_dead_total", "Connections closed because the client was gone.")
	descClosed        = desc("connections_closed_total", "Connections closed by the gateway, by close code.", "code")
	descReceived      = desc("subscription_messages_total", "Messages received over the subscription, including canaries.")
	descForeign       = desc("subscription_foreign_total", "Messages of other programs, delivered as ephemeral.")
	descMalformed     = desc("subscription_malformed_total", "Received messages that could not be parsed and were dropped.")
	descSubscriptions = desc("subscriptions_total", "Times the subscription was established.")
	descLost          = desc("subscriptions_lost_total", "Times the subscription broke or went silent.")
	descLimited       = desc("limiter_decisions_total", "Decisions of the rate limiters.", "scope", "decision")
	descPending       = desc("scheduled_pending", "Scheduled notifications in Redis at the last poll of this node.")
	descAdded         = desc("scheduled_total", "Notifications scheduled through this node.")
	descPublished     = desc("scheduled_delivered_total", "Scheduled notifications published by this node.")
	descCancelled     = desc("scheduled_cancelled_total", "Scheduled notifications cancelled through this node.")
	descPostponed     = desc("scheduled_postponed_total", "Scheduled notifications that Redis refused to publish and that are postponed by a minute.")
	descTakenBack     = desc("scheduled_taken_back_total", "Scheduled notifications removed by this node, because the request that they came with failed.")
	descLate          = desc("scheduled_late_seconds", "Delay of scheduled notifications that this node delivered.")
	descRefused       = desc("http_refused_total", "Requests answered with an error, by status.", "status")
	descCache         = desc("cache_total", "Cache events. hit, stale and miss are answers; wait, load, load_error, redis_error, late and skipped are the work behind them.", "cache", "outcome")
	descRecipients    = desc("recipients_total", "Notifications by their recipients' preferences; failed_open: delivered because those were unknown.", "decision")
	descPanics        = desc("panics_total", "Recovered panics.")
	descLocks         = desc("locks_total", "Lock events. An acquired lock may be counted again as extended, lost or unreleased.", "event")
	descJanitorRuns   = desc("janitor_runs_total", "Runs of the janitor on this node.", "result")
	descJanitor       = desc("janitor_removed_total", "Keys that the janitor of this node removed, by kind; without_expiry: keys that got an expiry.", "kind")
)

// Describe sends nothing, so the registry accepts any metric from Collect.
func (collector) Describe(chan<- *prometheus.Desc) {}

func (c collector) Collect(ch chan<- prometheus.Metric) {
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v)
	}
	sockets, users := c.Hub.Count()
	gauge(descConnections, float64(sockets))
	gauge(descUsers, float64(users))
	readiness, _ := c.Server.Readiness()
	gauge(descReady, oneIf(readiness == ""))

	h := c.Hub.Stats()
	count(descDelivered, h.Delivered)
	count(descAbsent, h.Absent)
	count(descDuplicates, h.Duplicates)
	count(descRepairs, h.Repairs)
	count(descRepaired, h.Repaired)
	count(descGaps, h.Gaps)
	count(descShed, h.Shed)
	count(descDead, h.Dead)
	for code, n := range h.Closed {
		count(descClosed, n, strconv.Itoa(int(code)))
	}

	sub := c.Broker.SubscriptionStats()
	count(descReceived, sub.Received)
	count(descForeign, sub.Foreign)
	count(descMalformed, sub.Malformed)
	count(descSubscriptions, sub.Subscriptions)
	count(descLost, sub.Lost)

	for scope, l := range map[string]*limiter.Limiter{"publish": c.Publish, "connect": c.Connect} {
		st := l.Stats()
		count(descLimited, st.Allowed, scope, "allowed")
		count(descLimited, st.Denied, scope, "denied")
		count(descLimited, st.FailedOpen, scope, "failed_open")
	}
	sched := c.Schedule.Stats()
	gauge(descPending, float64(sched.Pending))
	count(descAdded, sched.Added)
	count(descPublished, sched.Delivered)
	count(descCancelled, sched.Cancelled)
	count(descPostponed, sched.Failed)
	count(descTakenBack, sched.TakenBack)
	ch <- lateness(sched)
	for name, stats := range c.Caches {
		st := stats()
		for outcome, n := range map[string]uint64{
			"hit": st.Hits, "stale": st.Stale, "miss": st.Misses, "wait": st.Waits, "load": st.Loads,
			"load_error": st.LoadErrors, "redis_error": st.RedisErrors, "late": st.Late, "skipped": st.Skipped,
		} {
			count(descCache, n, name, outcome)
		}
	}
	if c.Recipients != nil {
		st := c.Recipients.Stats()
		for decision, n := range map[string]uint64{
			"muted": st.Muted, "quiet": st.Quiet, "skipped_quiet": st.SkippedQuiet, "wanted": st.Wanted, "failed_open": st.FailedOpen,
		} {
			count(descRecipients, n, decision)
		}
	}
	srv := c.Server.Counters()
	for status, n := range srv.Refused {
		count(descRefused, n, status)
	}
	count(descPanics, srv.Panics)

	if c.Locks != nil {
		st := c.Locks.Stats()
		count(descLocks, st.Acquired, "acquired")
		count(descLocks, st.Taken, "taken")
		count(descLocks, st.Unavailable, "unavailable")
		count(descLocks, st.Extended, "extended")
		count(descLocks, st.Lost, "lost")
		count(descLocks, st.Unreleased, "unreleased")
	}
	if c.Janitor != nil {
		st := c.Janitor.Stats()
		count(descJanitorRuns, st.Runs, "done")
		count(descJanitorRuns, st.Failures, "failed")
		for kind, n := range st.Removed {
			count(descJanitor, n, kind)
		}
	}
}

// lateness is a histogram of delivery delays. Prometheus's buckets are cumulative.
func lateness(st schedule.Stats) prometheus.Metric {
	buckets, n := map[float64]uint64{}, uint64(0)
	for i, bound := range schedule.LateBounds {
		n += st.Late[i]
		buckets[bound.Seconds()] = n
	}
	n += st.Late[len(st.Late)-1]
	return prometheus.MustNewConstHistogram(descLate, n, st.LateSum.Seconds(), buckets)
}

// redisCollector exports the sampler's last report. A value that Redis does not report is
// left out.
type redisCollector struct{ redis *redisinfo.Sampler }

func redisDesc(name, help string, labels ...string) *prometheus.Desc {
	return desc("redis_"+name, help, labels...)
}

var (
	descRedisUp        = redisDesc("up", "1 if the last sample of Redis succeeded.")
	descRedisAge       = redisDesc("sample_age_seconds", "Age of the sample behind the other herald_redis_ metrics.")
	descRedisTrip      = redisDesc("round_trip_seconds", "Round trip time, median of three.")
	descRedisClock     = redisDesc("clock_difference_seconds", "Redis's clock minus this node's clock.")
	descRedisMemory    = redisDesc("used_memory_bytes", "Memory used by Redis.")
	descRedisMaxMemory = redisDesc("maxmemory_bytes", "Memory limit of Redis; 0: no limit.")
	descRedisKeys      = redisDesc("keys", "Keys in all databases.")
	descRedisClients   = redisDesc("connected_clients", "Client connections.")
	descRedisMax       = redisDesc("maxclients", "Maximum of client connections.")
	descRedisBlocked   = redisDesc("blocked_clients", "Clients that wait in a blocking command.")
	descRedisRejected  = redisDesc("rejected_connections_total", "Connections refused because of maxclients.")
	descRedisEvicted   = redisDesc("evicted_keys_total", "Keys evicted because memory was full.")
	descRedisExpired   = redisDesc("expired_keys_total", "Expired keys.")
	descRedisHits      = redisDesc("keyspace_hits_total", "Lookups that found their key.")
	descRedisMisses    = redisDesc("keyspace_misses_total", "Lookups that did not find their key.")
	descRedisSlow      = redisDesc("slowlog_entries_total", "Commands of 10 ms or longer in the slow log since the start of this node.")
	descRedisAOF       = redisDesc("aof_enabled", "1 if the append-only file is enabled.")
	descRedisSaved     = redisDesc("persistence_ok", "1 if the last snapshot and writes of the append-only file succeeded.")
	descRedisUnsaved   = redisDesc("rdb_changes_since_last_save", "Changes since the last snapshot.")
	descRedisLoading   = redisDesc("loading", "1 while Redis loads its data from disk.")
	descRedisPrimary   = redisDesc("primary", "1 if this Redis is a primary.")
	descRedisReplicas  = redisDesc("replicas", "Replicas connected to the primary.")
	descRedisLag       = redisDesc("replication_lag_seconds", "Time since a replica last acknowledged.", "replica")
	descRedisLagBytes  = redisDesc("replication_lag_bytes", "Bytes that a replica has not acknowledged.", "replica")
	descRedisBuffer    = redisDesc("subscriber_buffer_bytes", "Output buffer in Redis of this node's subscription.")
	descRedisLargest   = redisDesc("subscriber_buffer_largest_bytes", "Largest output buffer in Redis of any subscriber.")
	descRedisLimit     = redisDesc("subscriber_buffer_limit_bytes", "Output buffer at which Redis disconnects a subscriber; 0: no limit.", "limit")
	descRedisFinding   = redisDesc("finding", "Results of the checks: 0 ok, 1 unknown, 2 warning, 3 must be changed.", "check")
	descCacheRatio     = desc("cache_hit_ratio", "Share of lookups of the last ten minutes that found their key, 0 to 1, after a thousand lookups.", "cache")
)

// Describe sends nothing, so the registry accepts any metric from Collect.
func (redisCollector) Describe(chan<- *prometheus.Desc) {}

func (c redisCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	st := c.redis.Status()
	r := st.Report
	if r.At.IsZero() {
		gauge(descRedisUp, 0)
		return
	}
	gauge(descRedisUp, oneIf(st.Err == nil))
	gauge(descRedisAge, st.Age().Seconds())
	gauge(descRedisTrip, r.RoundTrip.Seconds())
	if r.Clock != nil {
		gauge(descRedisClock, r.Clock.Seconds())
	}
	if r.SlowLog != nil {
		ch <- prometheus.MustNewConstMetric(descRedisSlow, prometheus.CounterValue, float64(st.Slow))
	}
	if s := r.Subscribers; s != nil {
		gauge(descRedisBuffer, float64(s.Own))
		gauge(descRedisLargest, float64(s.Largest))
	}
	if r.Config != nil {
		gauge(descRedisLimit, float64(r.Config.PubSubLimit.Hard), "hard")
		gauge(descRedisLimit, float64(r.Config.PubSubLimit.Soft), "soft")
	}
	for _, f := range st.Findings {
		gauge(descRedisFinding, float64(f.Level), f.Name)
	}
	for cache, ratio := range st.Ratios {
		if share, ok := ratio.Share(); ok {
			gauge(descCacheRatio, share, cache)
		}
	}
	if r.Info != nil {
		collectInfo(ch, *r.Info)
	}
}

func collectInfo(ch chan<- prometheus.Metric, i redisinfo.Info) {
	send := func(kind prometheus.ValueType, d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, kind, v, labels...)
	}
	healthy := func(status string) bool { return status == "" || status == "ok" }
	for d, v := range map[*prometheus.Desc]float64{
		descRedisMemory: float64(i.UsedMemory), descRedisMaxMemory: float64(i.MaxMemory), descRedisKeys: float64(i.Keys),
		descRedisClients: float64(i.Clients), descRedisMax: float64(i.MaxClients), descRedisBlocked: float64(i.Blocked),
		descRedisAOF: oneIf(i.AOF), descRedisSaved: oneIf(healthy(i.Save) && healthy(i.AOFWrite) && healthy(i.AOFRewrite)),
		descRedisUnsaved: float64(i.UnsavedChanges), descRedisLoading: oneIf(i.Loading), descRedisPrimary: oneIf(i.Role == "master"),
		descRedisReplicas: float64(len(i.Replicas)),
	} {
		send(prometheus.GaugeValue, d, v)
	}
	for d, v := range map[*prometheus.Desc]int64{
		descRedisRejected: i.Rejected, descRedisEvicted: i.EvictedKeys, descRedisExpired: i.ExpiredKeys,
		descRedisHits: i.Hits, descRedisMisses: i.Misses,
	} {
		send(prometheus.CounterValue, d, float64(v))
	}
	seen := map[string]bool{} // a reconnected replica is listed twice until its old connection times out
	for _, replica := range i.Replicas {
		if seen[replica.Addr] {
			continue
		}
		seen[replica.Addr] = true
		send(prometheus.GaugeValue, descRedisLag, replica.Lag.Seconds(), replica.Addr)
		send(prometheus.GaugeValue, descRedisLagBytes, float64(replica.Bytes), replica.Addr)
	}
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
