package redisinfo

import (
	"testing"
	"time"
)

// sound is a Redis about which there is nothing to say.
func sound() Report {
	clock := time.Millisecond
	at := time.Unix(1_764_000_000, 0)
	return Report{
		At: at, RoundTrip: 200 * time.Microsecond, Slowest: time.Millisecond, Probes: 3, Clock: &clock,
		Info: &Info{
			Version: "7.0.15", Mode: "standalone", Role: "master", UsedMemory: 10 << 20, MaxMemory: 1 << 30, Policy: "noeviction",
			Clients: 100, MaxClients: 10_000, Hits: 9000, Misses: 1000, AOF: true, AOFWrite: "ok", AOFRewrite: "ok", Save: "ok",
			Replicas: []Replica{{Addr: "10.0.0.2:6379", State: "online", Lag: time.Second}},
		},
		Config:      &Config{AppendFsync: "everysec", SlowerThan: SlowCommand, PubSubLimit: BufferLimit{32 << 20, 8 << 20, time.Minute}},
		SlowLog:     &SlowLog{Entries: []SlowEntry{{Took: time.Second, At: at.Add(-2 * recently)}}},
		Subscribers: &Subscribers{Count: 3, Largest: 1000, Own: 1000, Found: true},
	}
}

func TestNothingToSay(t *testing.T) {
	found := Examine(sound(), Circumstances{WaitReplicas: 1})
	for _, f := range found {
		if f.Level != OK || f.Text == "" || f.Advice != "" {
			t.Errorf("%+v", f)
		}
	}
	if len(found) < 12 {
		t.Errorf("only %d checks", len(found))
	}
}

func TestExamine(t *testing.T) {
	skew := func(d time.Duration) func(*Report) { return func(r *Report) { r.Clock = &d } }
	for name, tt := range map[string]struct {
		check  string
		want   Level
		change func(*Report)
	}{
		"far away":              {"round trip", Warn, func(r *Report) { r.RoundTrip = 6 * time.Millisecond }},
		"too far away":          {"round trip", Fail, func(r *Report) { r.RoundTrip = 120 * time.Millisecond }},
		"clock ahead":           {"clock", Warn, skew(2 * time.Second)},
		"clock far behind":      {"clock", Fail, skew(-2 * time.Hour)},
		"no clock":              {"TIME", Unknown, func(r *Report) { r.Clock = nil }},
		"old":                   {"version", Fail, func(r *Report) { r.Info.Version = "6.2.14" }},
		"newer":                 {"version", OK, func(r *Report) { r.Info.Version = "10.0.1" }},
		"cluster":               {"version", Fail, func(r *Report) { r.Info.Mode = "cluster" }},
		"no limit":              {"memory", Warn, func(r *Report) { r.Info.MaxMemory = 0 }},
		"nearly full":           {"memory", Warn, func(r *Report) { r.Info.UsedMemory = 850 << 20 }},
		"full":                  {"memory", Fail, func(r *Report) { r.Info.UsedMemory = 1020 << 20 }},
		"no persistence":        {"persistence", Warn, func(r *Report) { r.Info.AOF = false }},
		"snapshots":             {"persistence", Warn, func(r *Report) { r.Info.AOF, r.Config.Save = false, "3600 1" }},
		"kernel's choice":       {"persistence", Warn, func(r *Report) { r.Config.AppendFsync = "no" }},
		"write failed":          {"persistence", Fail, func(r *Report) { r.Info.AOFWrite = "err" }},
		"rewrite failed":        {"persistence", Fail, func(r *Report) { r.Info.AOFRewrite = "err" }},
		"not told":              {"persistence", OK, func(r *Report) { r.Config = nil }},
		"loading":               {"persistence", Warn, func(r *Report) { r.Info.Loading = true; r.Info.AOF = false }},
		"replica":               {"replication", Fail, func(r *Report) { r.Info.Role, r.Info.PrimaryLink = "slave", "up" }},
		"replica lags":          {"replication", Warn, func(r *Report) { r.Info.Replicas[0].Lag = 11 * time.Second }},
		"replica syncs":         {"replication", Fail, func(r *Report) { r.Info.Replicas[0].State = "wait_bgsave" }},
		"many clients":          {"clients", Warn, func(r *Report) { r.Info.Clients = 8500 }},
		"too many clients":      {"clients", Fail, func(r *Report) { r.Info.Clients = 9900 }},
		"misses":                {"hit ratio", Warn, func(r *Report) { r.Info.Misses = 3000 }},
		"too few to tell":       {"hit ratio", OK, func(r *Report) { r.Info.Hits, r.Info.Misses = 0, 999 }},
		"small buffers":         {"subscriber buffer", Warn, func(r *Report) { r.Config.PubSubLimit.Hard = 1 << 20 }},
		"no buffer limit":       {"subscriber buffer", Warn, func(r *Report) { r.Config.PubSubLimit = BufferLimit{} }},
		"buffer fills":          {"subscriber buffer", Warn, func(r *Report) { r.Subscribers.Largest = 5 << 20 }},
		"clients only":          {"subscriber buffer", OK, func(r *Report) { r.Config = nil }},
		"no slow log":           {"slow log", Warn, func(r *Report) { r.Config.SlowerThan = -time.Microsecond }},
		"slow log begins late":  {"slow log", Warn, func(r *Report) { r.Config.SlowerThan = time.Second }},
		"slow a moment ago":     {"slow log", Warn, func(r *Report) { r.SlowLog.Entries[0].At = r.At }},
		"keyspace notification": {"keyspace notifications", Warn, func(r *Report) { r.Config.KeyspaceEvents = "AKE" }},
	} {
		r := sound()
		tt.change(&r)
		if got := level(t, Examine(r, Circumstances{WaitReplicas: 1}), tt.check); got != tt.want {
			t.Errorf("%s: %s is %s, want %s", name, tt.check, got, tt.want)
		}
	}
}

func TestParseReplica(t *testing.T) {
	i := parseInfo("redis_version:7.2\r\nrole:master\r\nmaster_repl_offset:1000\r\nslave0:ip=::1,port=7001,state=online,offset=400,lag=12\r\ndb0:keys=5,expires=2,avg_ttl=0\r\ndb15:keys=1,expires=0\r\ndbx:keys=9\r\n")
	want := Replica{Addr: "[::1]:7001", State: "online", Lag: 12 * time.Second, Bytes: 600}
	if len(i.Replicas) != 1 || i.Replicas[0] != want || i.Keys != 6 || i.ExpiringKeys != 2 {
		t.Errorf("%+v", i)
	}
}

func TestBytesAndBrief(t *testing.T) {
	for n, want := range map[int64]string{0: "0B", 1023: "1023B", 1536: "1.5K", 32 << 20: "32.0M", 5 << 40: "5.0T"} {
		if got := Bytes(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		123_456: "123µs", 1_234_567: "1.23ms", -12_345_678: "-12.3ms", 1_234 * time.Millisecond: "1.23s", 3*time.Hour + time.Millisecond: "3h0m0s",
	} {
		if got := Brief(d); got != want {
			t.Errorf("%d: %s, want %s", d, got, want)
		}
	}
}
