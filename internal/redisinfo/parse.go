package redisinfo

import (
	"net"
	"strconv"
	"strings"
	"time"
)

// fields are INFO's lines by name; a missing field, or one that is not a number, is 0.
type fields map[string]string

func (f fields) number(name string) int64 {
	n, _ := strconv.ParseInt(f[name], 10, 64)
	return n
}

func (f fields) seconds(name string) time.Duration {
	return time.Duration(f.number(name)) * time.Second
}

func parseFields(text string) fields {
	f := fields{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			f[name] = value
		}
	}
	return f
}

// parseInfo returns nil for an incomplete INFO: miniredis has only a few of its lines, and
// missing ones must not count as zero.
func parseInfo(text string) *Info {
	f := parseFields(text)
	if f["redis_version"] == "" {
		return nil
	}
	i := &Info{
		Version: f["redis_version"], Mode: f["redis_mode"], RunID: f["run_id"], Uptime: f.seconds("uptime_in_seconds"),
		UsedMemory: f.number("used_memory"), MaxMemory: f.number("maxmemory"), Policy: f["maxmemory_policy"],
		EvictedKeys: f.number("evicted_keys"), ExpiredKeys: f.number("expired_keys"),
		Hits: f.number("keyspace_hits"), Misses: f.number("keyspace_misses"),
		Clients: f.number("connected_clients"), MaxClients: f.number("maxclients"),
		Blocked: f.number("blocked_clients"), Rejected: f.number("rejected_connections"),
		Loading: f["loading"] == "1", AOF: f["aof_enabled"] == "1",
		AOFWrite: f["aof_last_write_status"], AOFRewrite: f["aof_last_bgrewrite_status"], Save: f["rdb_last_bgsave_status"],
		LastSave: time.Unix(f.number("rdb_last_save_time"), 0), UnsavedChanges: f.number("rdb_changes_since_last_save"),
		Role: f["role"], PrimaryLink: f["master_link_status"],
	}
	for name, value := range f {
		if db, ok := strings.CutPrefix(name, "db"); ok && isNumber(db) {
			d := pairs(value, ",")
			i.Keys += d.number("keys")
			i.ExpiringKeys += d.number("expires")
		}
	}
	for n := 0; f["slave"+strconv.Itoa(n)] != ""; n++ {
		i.Replicas = append(i.Replicas, parseReplica(f["slave"+strconv.Itoa(n)], f.number("master_repl_offset")))
	}
	return i
}

// parseReplica reads ip=…,port=…,state=online,offset=…,lag=….
func parseReplica(value string, offset int64) Replica {
	d := pairs(value, ",")
	return Replica{
		Addr: net.JoinHostPort(d["ip"], d["port"]), State: d["state"],
		Lag: d.seconds("lag"), Bytes: max(offset-d.number("offset"), 0),
	}
}

// pairs reads name=value, separated.
func pairs(text, separator string) fields {
	f := fields{}
	for part := range strings.SplitSeq(text, separator) {
		if name, value, ok := strings.Cut(part, "="); ok {
			f[name] = value
		}
	}
	return f
}

func isNumber(s string) bool {
	_, err := strconv.ParseUint(s, 10, 32)
	return err == nil
}

func parseConfig(values map[string]string) *Config {
	f := fields(values)
	return &Config{
		AppendFsync: f["appendfsync"], Save: f["save"],
		SlowerThan:     time.Duration(f.number("slowlog-log-slower-than")) * time.Microsecond,
		PubSubLimit:    parseLimit(f["client-output-buffer-limit"]),
		KeyspaceEvents: f["notify-keyspace-events"],
	}
}

// parseLimit finds pubsub's among `normal 0 0 0 slave … pubsub 33554432 8388608 60`.
func parseLimit(text string) BufferLimit {
	words := strings.Fields(text)
	for i := 0; i+3 < len(words); i += 4 {
		if words[i] == "pubsub" {
			f := fields{"hard": words[i+1], "soft": words[i+2], "for": words[i+3]}
			return BufferLimit{Hard: f.number("hard"), Soft: f.number("soft"), SoftFor: f.seconds("for")}
		}
	}
	return BufferLimit{}
}

// parseSubscribers reads CLIENT LIST: a line per client of name=value. What waits
// for a client is in its fixed buffer (obl) and in a list (omem).
func parseSubscribers(text, own string) *Subscribers {
	s := &Subscribers{}
	for line := range strings.Lines(text) {
		c := pairs(strings.TrimSpace(line), " ")
		if c["id"] == "" {
			continue
		}
		s.Count++
		waiting := c.number("obl") + c.number("omem")
		s.Largest = max(s.Largest, waiting)
		if own != "" && c["name"] == own {
			s.Found = true
			s.Own = max(s.Own, waiting) // a broken connection may still be listed beside the new one
		}
	}
	return s
}
