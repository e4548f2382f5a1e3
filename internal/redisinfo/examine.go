package redisinfo

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// examineRoundTrip compares the round trip with the budget: a call that takes a third of
// it now exceeds it under load, and is then answered 503.
func examineRoundTrip(r Report, c Circumstances) Finding {
	f := Finding{Name: "round trip", Text: fmt.Sprintf("%s (median of %d, slowest %s)", Brief(r.RoundTrip), r.Probes, Brief(r.Slowest))}
	switch {
	case r.RoundTrip >= c.Budget/3:
		f.Level, f.Advice = Fail, fmt.Sprintf("bring Redis nearer, or find what slows it: calls that take longer than %s are answered with 503", c.Budget)
	case r.RoundTrip >= slowRoundTrip:
		f.Level, f.Advice = Warn, "run the nodes in Redis's own network: inside one, a round trip takes less than a millisecond"
	}
	return f
}

const slowRoundTrip = 5 * time.Millisecond

// examineClock compares the clocks: ids, windows, leases and deadlines use Redis's clock;
// JWTs and cookies use this node's.
func examineClock(r Report) Finding {
	if r.Clock == nil {
		return unknown("TIME", "clock difference")
	}
	d := r.Clock.Abs()
	f := Finding{Name: "clock", Text: fmt.Sprintf("Redis's is %s from ours (give or take half a round trip)", Brief(*r.Clock))}
	const advice = "let NTP set both machines' clocks: JWTs are judged by this machine's clock, sessions by Redis's"
	switch {
	case d >= 30*time.Second:
		f.Level, f.Advice = Fail, advice
	case d >= time.Second:
		f.Level, f.Advice = Warn, advice
	}
	return f
}

// minimum is the major version that sessions need: PEXPIRETIME exists since Redis 7.0.
const minimum = 7

func examineVersion(i Info) Finding {
	f := Finding{Name: "version", Text: strings.TrimSpace(i.Version + " " + i.Mode + ", up " + Brief(i.Uptime))}
	major, _, _ := strings.Cut(i.Version, ".")
	if n, err := strconv.Atoi(major); err != nil || n < minimum {
		f.Level, f.Advice = Fail, fmt.Sprintf("install Redis %d.0 or newer: sessions use PEXPIRETIME, which older versions lack", minimum)
	}
	if i.Mode == "cluster" {
		f.Level, f.Advice = Fail, "use one primary (with replicas and Sentinel if you like): Redis Cluster is not supported"
	}
	return f
}

// examinePolicy: all of Herald's keys have a lifetime, so volatile-* policies
// evict them as allkeys-* ones do. They are harmless only where there is no
// limit to reach; allkeys-* says that this Redis is a cache, limit or not.
func examinePolicy(i Info) Finding {
	f := Finding{Name: CheckPolicy, Text: "maxmemory-policy is " + i.Policy}
	family, _, _ := strings.Cut(i.Policy, "-")
	const advice = "CONFIG SET maxmemory-policy noeviction, and the same in redis.conf (managed: in the parameter group); use a separate Redis for caches"
	switch {
	case i.Policy == "":
		return unknown("INFO", CheckPolicy)
	case family == "allkeys":
		f.Level, f.Advice = Fail, advice
		f.Text += ": when memory is full it evicts sessions and logs"
	case family == "volatile" && i.MaxMemory > 0:
		f.Level, f.Advice = Fail, advice
		f.Text += ": when memory is full it evicts keys that have a lifetime, and sessions and logs have one"
	case family == "volatile":
		f.Level, f.Advice = Warn, advice
		f.Text += ": it evicts sessions and logs as soon as there is a maxmemory to reach"
	}
	if i.EvictedKeys > 0 {
		f.Text += fmt.Sprintf("; %s evicted so far", plural(i.EvictedKeys, "key"))
	}
	return f
}

func examineMemory(i Info) Finding {
	f := Finding{Name: "memory", Text: fmt.Sprintf("%s used of %s, %s", Bytes(i.UsedMemory), Bytes(i.MaxMemory), plural(i.Keys, "key"))}
	const advice = "raise maxmemory, or keep less (HERALD_LOG_LENGTH, HERALD_LOG_RETENTION): when it is full, publishing and log-in answer 503"
	switch part := share(i.UsedMemory, i.MaxMemory); {
	case i.MaxMemory == 0:
		f.Level = Warn
		f.Text = fmt.Sprintf("%s used, %s, no maxmemory", Bytes(i.UsedMemory), plural(i.Keys, "key"))
		f.Advice = "set maxmemory to what the machine can spare: without it the kernel kills Redis when memory runs out; with it Redis refuses writes"
	case part >= 0.95:
		f.Level, f.Advice = Fail, advice
	case part >= 0.8:
		f.Level, f.Advice = Warn, advice
	}
	return f
}

// examinePersistence: c is nil where CONFIG is refused.
func examinePersistence(i Info, c *Config) Finding {
	f := Finding{Name: "persistence"}
	switch {
	case i.AOF && c != nil:
		f.Text = "append-only file, appendfsync " + c.AppendFsync
	case i.AOF:
		f.Text = "append-only file"
	case c == nil:
		f.Text = "no append-only file; snapshots: unknown"
	case c.Save != "":
		f.Text = "snapshots only (save " + c.Save + ")"
	default:
		f.Text = "none"
	}
	failed := func(what, status string) bool {
		if status == "" || status == "ok" {
			return false
		}
		f.Level = Fail
		f.Text += "; the last " + what + " failed"
		f.Advice = "look into Redis's log (disk full? no permission? no memory to fork?): it refuses writes while it cannot save"
		return true
	}
	if failed("snapshot", i.Save) || failed("write of the append-only file", i.AOFWrite) || failed("rewrite of the append-only file", i.AOFRewrite) {
		return f
	}
	switch {
	case i.Loading:
		f.Level, f.Text, f.Advice = Warn, f.Text+"; still loading", "wait until Redis has loaded its data"
	case !i.AOF && (c == nil || c.Save != ""):
		f.Level, f.Advice = Warn, "CONFIG SET appendonly yes: writes acknowledged since the last snapshot are lost when Redis stops"
	case !i.AOF:
		f.Level, f.Advice = Warn, "CONFIG SET appendonly yes: all acknowledged writes are lost when Redis restarts (clients get gap frames)"
	case c != nil && c.AppendFsync == "no":
		f.Level, f.Advice = Warn, "CONFIG SET appendfsync everysec: now the kernel decides how much is lost when the machine dies, 30 s are usual"
	}
	return f
}

// slowReplica is the longest normal time since a replica's last acknowledgement; replicas
// acknowledge every second.
const slowReplica = 10 * time.Second

func examineReplication(i Info, wanted int) Finding {
	f := Finding{Name: "replication"}
	if i.Role != "master" && i.Role != "" {
		f.Level, f.Text = Fail, fmt.Sprintf("this is a replica (its link to the primary is %s)", i.PrimaryLink)
		f.Advice = "let REDIS_URL name the primary: a replica refuses writes, and messages published on it reach no node"
		return f
	}
	online, told := 0, []string{plural(int64(len(i.Replicas)), "replica")}
	for _, r := range i.Replicas {
		told = append(told, fmt.Sprintf("%s %s, %s and %s behind", r.Addr, r.State, Brief(r.Lag), Bytes(r.Bytes)))
		if r.State == "online" {
			online++
		}
		if r.State != "online" || r.Lag >= slowReplica {
			f.Level, f.Advice = Warn, "look at the replica and the network to it: if it is promoted now, the missing writes are lost"
		}
	}
	f.Text = strings.Join(told, "; ")
	if online < wanted {
		f.Level = Fail
		f.Text += fmt.Sprintf("; HERALD_WAIT_REPLICAS is %d", wanted)
		f.Advice = "start the replicas that are missing, or lower HERALD_WAIT_REPLICAS: every publish waits for them and answers 503"
	}
	return f
}

func examineClients(i Info, t *Trend) Finding {
	f := Finding{Name: "clients", Text: fmt.Sprintf("%d connected of %d", i.Clients, i.MaxClients)}
	if i.Rejected > 0 {
		f.Text += fmt.Sprintf("; %s turned away since its start", plural(i.Rejected, "connection"))
	}
	const advice = "find the clients (CLIENT LIST), or raise maxclients and Redis's limit of open files: a node keeps up to 70 connections"
	switch part := share(i.Clients, i.MaxClients); {
	case part >= 0.95:
		f.Level, f.Advice = Fail, advice
	case part >= 0.8:
		f.Level, f.Advice = Warn, advice
	case t != nil && t.grown(i.Clients):
		f.Level, f.Advice = Warn, "find out who connects (CLIENT LIST): a program that leaks connections uses up maxclients"
		f.Text += fmt.Sprintf("; %d within the last %s", t.FewestClients, window)
	}
	return f
}

// examineBuffer checks the limits of subscribers' output buffers and how full the buffers
// are.
func examineBuffer(r Report) Finding {
	f := Finding{Name: "subscriber buffer"}
	if r.Subscribers == nil && r.Config == nil {
		return unknown("CLIENT LIST", f.Name)
	}
	var told []string
	if s := r.Subscribers; s != nil {
		told = append(told, fmt.Sprintf("%s waiting for the slowest of %s", Bytes(s.Largest), plural(int64(s.Count), "subscriber")))
	}
	if c := r.Config; c != nil {
		l := c.PubSubLimit
		told = append(told, fmt.Sprintf("limit %s, or %s for %s", noLimit(l.Hard), noLimit(l.Soft), Brief(l.SoftFor)))
		switch {
		case l.Hard > 0 && l.Hard < 8<<20 || l.Soft > 0 && l.Soft < 2<<20:
			f.Level = Warn
			f.Advice = "CONFIG SET client-output-buffer-limit 'pubsub 32mb 8mb 60': with less, a burst of large messages ends the subscription (it is repaired, but late)"
		case l.Hard == 0:
			f.Level = Warn
			f.Advice = "CONFIG SET client-output-buffer-limit 'pubsub 32mb 8mb 60': without a limit, one stalled subscriber can use all of Redis's memory"
		}
		if s := r.Subscribers; s != nil && (share(s.Largest, l.Hard) >= 0.5 || share(s.Largest, l.Soft) >= 0.5) {
			f.Level = Warn
			f.Advice = "look at the slowest subscriber's machine and network (CLIENT LIST TYPE pubsub, omem): Redis is about to drop it"
		}
	}
	f.Text = strings.Join(told, "; ")
	return f
}

func noLimit(n int64) string {
	if n == 0 {
		return "none"
	}
	return Bytes(n)
}

// recently is the age up to which a slow command causes a finding.
const recently = time.Hour

func examineSlowLog(r Report) Finding {
	if r.SlowLog == nil {
		return unknown("SLOWLOG GET", "slow log")
	}
	f := Finding{Name: "slow log", Text: "nothing of " + Brief(SlowCommand) + " or longer"}
	if c := r.Config; c != nil && (c.SlowerThan < 0 || c.SlowerThan > SlowCommand) {
		f.Level, f.Text = Warn, "off"
		if c.SlowerThan > 0 {
			f.Text = "begins only at " + Brief(c.SlowerThan)
		}
		f.Advice = fmt.Sprintf("CONFIG SET slowlog-log-slower-than %d: slow commands are not recorded now", SlowCommand.Microseconds())
		return f
	}
	var slowest SlowEntry
	for _, e := range r.SlowLog.Entries {
		if e.Took > slowest.Took {
			slowest = e
		}
		if r.At.Sub(e.At) < recently {
			f.Level = Warn
			f.Advice = "find out which client sends it (SLOWLOG GET shows all of it): all other commands wait while it runs"
		}
	}
	if n := len(r.SlowLog.Entries); n > 0 {
		f.Text = fmt.Sprintf("%d of the last %d took %s or longer; slowest %s: %s from %s, %s",
			n, slowLogPage, Brief(SlowCommand), Brief(slowest.Took), slowest.Name(), slowest.Client, slowest.At.UTC().Format(time.RFC3339))
	}
	return f
}

// Name is the command, with the pattern of its key.
func (e SlowEntry) Name() string { return strings.TrimSpace(e.Command + " " + e.Key) }

func examineEvents(r Report) Finding {
	if r.Config == nil {
		return unknown("CONFIG GET", "append-only policy, buffer limits, slow log's threshold, keyspace notifications")
	}
	f := Finding{Name: "keyspace notifications", Text: "off"}
	if e := r.Config.KeyspaceEvents; e != "" {
		f.Level, f.Text = Warn, "on ("+e+")"
		f.Advice = "CONFIG SET notify-keyspace-events '' unless another program needs them: Herald does not, and each write costs a message"
	}
	return f
}
