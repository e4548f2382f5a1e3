package redisinfo

import (
	"fmt"
	"time"
)

// Level says how much a finding matters.
type Level int

const (
	OK      Level = iota
	Unknown       // Redis does not permit the command
	Warn          // works, and could be better or is about to be worse
	Fail          // must be changed: it causes loss or refusals
)

var levelNames = [...]string{OK: "ok", Unknown: "unknown", Warn: "warn", Fail: "fail"}

func (l Level) String() string { return levelNames[l] }

// MarshalText implements encoding.TextMarshaler.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// Finding is the result of one check of a Report.
type Finding struct {
	Name   string `json:"name"` // short and stable
	Level  Level  `json:"level"`
	Text   string `json:"text"`             // the state, with figures
	Advice string `json:"advice,omitempty"` // what to change; "" if nothing

	quiet bool // shown, but not logged
}

// Circumstances are the settings that a Report is checked against. The zero value works.
type Circumstances struct {
	Budget       time.Duration // the longest a call to Redis may take; default 300 ms
	WaitReplicas int           // replicas that must have a notification before it is acknowledged
	Trend        *Trend        // nil: there is this one Report only
}

// Names of findings that other packages select.
const (
	CheckPolicy   = "memory policy"
	checkHitRatio = "hit ratio"
)

// Examine checks a Report against what Herald needs, most important first.
func Examine(r Report, c Circumstances) []Finding {
	if c.Budget <= 0 {
		c.Budget = 300 * time.Millisecond
	}
	found := []Finding{examineRoundTrip(r, c), examineClock(r)}
	if r.Info == nil {
		found = append(found, unknown("INFO", "version, memory, policy, persistence, replication, clients"))
	} else {
		i := *r.Info
		found = append(found, examineVersion(i), examinePolicy(i), examineMemory(i), examinePersistence(i, r.Config),
			examineReplication(i, c.WaitReplicas), examineClients(i, c.Trend))
	}
	found = append(found, examineBuffer(r), examineSlowLog(r), examineEvents(r))
	return append(found, examineHitRatios(r.Info, c.Trend)...)
}

// Worst is the highest level among the findings.
func Worst(found []Finding) Level {
	worst := OK
	for _, f := range found {
		worst = max(worst, f.Level)
	}
	return worst
}

// unknown is the finding for a command that Redis does not permit.
func unknown(command, what string) Finding {
	return Finding{Name: command, Level: Unknown, Text: what + ": not permitted, or not known to this server",
		Advice: "let the user of REDIS_URL run " + command + " if you want this examined"}
}

// share returns the used part of a limit; 0 without a limit.
func share(used, limit int64) float64 {
	if limit <= 0 {
		return 0
	}
	return float64(used) / float64(limit)
}

// Bytes formats a size with Redis's units: 1.2M is 1.2 × 2^20 bytes.
func Bytes(n int64) string {
	size := float64(n)
	for _, unit := range []string{"B", "K", "M", "G"} {
		if size < 1024 {
			if unit == "B" {
				return fmt.Sprintf("%dB", n)
			}
			return fmt.Sprintf("%.1f%s", size, unit)
		}
		size /= 1024
	}
	return fmt.Sprintf("%.1fT", size)
}

// Brief formats a duration with about three digits.
func Brief(d time.Duration) string {
	unit := time.Microsecond
	switch abs := d.Abs(); {
	case abs >= time.Minute:
		unit = time.Second
	case abs >= time.Second:
		unit = 10 * time.Millisecond
	case abs >= 10*time.Millisecond:
		unit = 100 * time.Microsecond
	case abs >= time.Millisecond:
		unit = 10 * time.Microsecond
	}
	return d.Round(unit).String()
}

func plural(n int64, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}
