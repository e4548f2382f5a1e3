// Package redisinfo examines a Redis server for its operator: a Report of the server's
// state, Findings about problems, and a Sampler that refreshes both and logs changes. It
// uses only cheap commands: TIME, INFO, CONFIG GET, SLOWLOG GET and CLIENT LIST TYPE
// pubsub; never KEYS, SCAN or MEMORY USAGE. If Redis refuses a command (a managed server,
// a narrow ACL), its section is missing from the Report and Report.Refused names the
// command; that is no error. Sources: redis.io/docs/latest/commands/info,
// …/operate/oss_and_stack/management/{admin, optimization/latency, replication,
// persistence}, and redis.conf of Redis 7.0.
package redisinfo

import "time"

// Report is the state of Redis at one time. A section is nil if Redis refused its command.
// Sizes are in bytes; counters run since the start of Redis.
type Report struct {
	At        time.Time     `json:"at"`
	RoundTrip time.Duration `json:"roundTripNanoseconds"` // median of the probes
	Slowest   time.Duration `json:"slowestNanoseconds"`   // of the probes
	Probes    int           `json:"probes"`
	// Clock is Redis's clock minus this node's, exact to half a round trip; nil if Redis
	// refuses TIME.
	Clock *time.Duration `json:"clockDifferenceNanoseconds,omitempty"`

	Info        *Info        `json:"info,omitempty"`
	Config      *Config      `json:"config,omitempty"`
	SlowLog     *SlowLog     `json:"slowLog,omitempty"`
	Subscribers *Subscribers `json:"subscribers,omitempty"`
	Refused     []string     `json:"notPermitted,omitempty"` // commands that Redis refused or does not have
}

// Info is INFO.
type Info struct {
	Version string        `json:"version"`
	Mode    string        `json:"mode"`  // standalone, sentinel, cluster
	RunID   string        `json:"runId"` // changes with each restart
	Uptime  time.Duration `json:"uptimeNanoseconds"`

	UsedMemory  int64  `json:"usedMemoryBytes"`
	MaxMemory   int64  `json:"maxMemoryBytes"` // 0: no limit
	Policy      string `json:"maxMemoryPolicy"`
	EvictedKeys int64  `json:"evictedKeys"`
	ExpiredKeys int64  `json:"expiredKeys"`

	Keys         int64 `json:"keys"`         // of all databases
	ExpiringKeys int64 `json:"expiringKeys"` // those that have a lifetime
	Hits         int64 `json:"keyspaceHits"`
	Misses       int64 `json:"keyspaceMisses"`

	Clients    int64 `json:"connectedClients"`
	MaxClients int64 `json:"maxClients"` // 0: unknown
	Blocked    int64 `json:"blockedClients"`
	Rejected   int64 `json:"rejectedConnections"` // refused because of MaxClients

	Loading        bool      `json:"loading"`
	AOF            bool      `json:"aofEnabled"`
	AOFWrite       string    `json:"aofLastWriteStatus"` // ok, err; "" if unknown
	AOFRewrite     string    `json:"aofLastRewriteStatus"`
	Save           string    `json:"rdbLastSaveStatus"`
	LastSave       time.Time `json:"rdbLastSave"` // Redis's start if it never saved
	UnsavedChanges int64     `json:"rdbChangesSinceLastSave"`

	Role        string    `json:"role"` // master or slave, as INFO says
	Replicas    []Replica `json:"replicas,omitempty"`
	PrimaryLink string    `json:"primaryLink,omitempty"` // of a replica: up or down
}

// Replica is a replica in a primary's INFO.
type Replica struct {
	Addr  string        `json:"addr"`
	State string        `json:"state"`          // online, or on the way there
	Lag   time.Duration `json:"lagNanoseconds"` // since its last acknowledgement, in whole seconds; one is normal
	Bytes int64         `json:"lagBytes"`       // not acknowledged
}

// Config is CONFIG GET.
type Config struct {
	AppendFsync    string        `json:"appendFsync"`
	Save           string        `json:"save"`                         // "" if Redis writes no snapshots
	SlowerThan     time.Duration `json:"slowLogSlowerThanNanoseconds"` // negative: there is no slow log
	PubSubLimit    BufferLimit   `json:"pubSubOutputBufferLimit"`
	KeyspaceEvents string        `json:"notifyKeyspaceEvents"` // "" if there are none
}

// BufferLimit is what may wait for a subscriber before Redis drops it: more than
// Hard, or more than Soft for longer than SoftFor. 0 is no limit.
type BufferLimit struct {
	Hard    int64         `json:"hardBytes"`
	Soft    int64         `json:"softBytes"`
	SoftFor time.Duration `json:"softNanoseconds"`
}

// SlowLog is the part of SLOWLOG GET that took SlowCommand or longer.
type SlowLog struct {
	Entries []SlowEntry `json:"entries"` // newest first
	newest  int64       // id of the newest entry of any duration; -1 if there is none
}

// SlowCommand is the duration from which a command counts as slow: all other commands wait
// for it.
const SlowCommand = 10 * time.Millisecond

// SlowEntry is one slow command, without its arguments.
type SlowEntry struct {
	ID      int64         `json:"id"`
	At      time.Time     `json:"at"` // by Redis's clock, whole seconds
	Took    time.Duration `json:"tookNanoseconds"`
	Command string        `json:"command"`       // GET, CONFIG GET
	Key     string        `json:"key,omitempty"` // pattern of the first key: user:{…}:log; "" if it has none or tells none
	Client  string        `json:"client,omitempty"`
}

// Subscribers is CLIENT LIST TYPE pubsub.
type Subscribers struct {
	Count   int   `json:"count"`
	Largest int64 `json:"largestBufferBytes"` // output buffer of the slowest
	Own     int64 `json:"ownBufferBytes"`     // output buffer of the connection with that name
	Found   bool  `json:"ownFound"`           // there is a connection of that name
}
