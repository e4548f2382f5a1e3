package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/internal/redisinfo"
)

// doctorCommand is `gateway doctor`.
type doctorCommand struct {
	JSON bool `name:"json" env:"-" help:"Print one JSON object instead of lines."`
}

// diagnosis is the doctor's result.
type diagnosis struct {
	OK       bool                `json:"ok"` // no finding requires a change
	Redis    string              `json:"redis"`
	Findings []redisinfo.Finding `json:"findings"`
	Report   *redisinfo.Report   `json:"report,omitempty"` // absent if Redis is down
}

// run prints the diagnosis and returns the exit code: 0 if no change is required, 1 if
// one is, 2 for a bad setting.
func (d doctorCommand) run(cfg config, w io.Writer) int {
	redis.SetLogger(redisLog{newLog(cfg)})
	found, err := examine(cfg)
	if err != nil {
		return complain(err, 2)
	}
	found.OK = redisinfo.Worst(found.Findings) < redisinfo.Fail
	if d.JSON {
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		err = e.Encode(found)
	} else {
		_, err = io.WriteString(w, found.text())
	}
	if err != nil {
		return complain(err, 1)
	}
	if !found.OK {
		return 1
	}
	return 0
}

// probes is the number of round trips that the doctor measures.
const probes = 20

// doctorBudget is the time limit of one call of the doctor. It is longer than the
// gateway's, so that the doctor can tell a slow Redis from one that is down.
const doctorBudget = 2 * time.Second

func examine(cfg config) (diagnosis, error) {
	if cfg.embedded {
		return diagnosis{Redis: "embedded", Findings: append([]redisinfo.Finding{{
			Name: "Redis", Text: "embedded, for trials: there is nothing to examine; set REDIS_URL to use a real one",
		}}, examineMachine(cfg, false)...)}, nil
	}
	o, err := redisOptions(cfg.RedisURL, doctorBudget)
	if err != nil {
		return diagnosis{}, err
	}
	rdb := redis.NewClient(o)
	defer func() { _ = rdb.Close() }()
	d := diagnosis{Redis: o.Addr}
	r, err := redisinfo.Take(context.Background(), rdb, redisinfo.TakeOptions{Budget: doctorBudget, Probes: probes})
	if err != nil {
		d.Findings = append(d.Findings, unreachable(o, err))
	} else {
		d.Report = &r
		d.Findings = append(d.Findings, redisinfo.Finding{Name: "Redis", Text: "answers at " + o.Addr})
		d.Findings = append(d.Findings, redisinfo.Examine(r, redisinfo.Circumstances{Budget: redisBudget, WaitReplicas: cfg.WaitReplicas})...)
	}
	d.Findings = append(d.Findings, examineTLS(o), examineKeys(cfg))
	d.Findings = append(d.Findings, examineMachine(cfg, here(o.Addr))...)
	return d, nil
}

func unreachable(o *redis.Options, err error) redisinfo.Finding {
	f := redisinfo.Finding{Name: "Redis", Level: redisinfo.Fail, Text: fmt.Sprintf("does not answer at %s: %v", o.Addr, cause(err)),
		Advice: "start it, or correct REDIS_URL: until it answers, the gateway answers publishing, sessions and cookies with 503"}
	switch text := err.Error(); {
	case strings.Contains(text, "WRONGPASS"), strings.Contains(text, "NOAUTH"), strings.Contains(text, "AUTH"):
		f.Advice = "correct the user and password in REDIS_URL"
	case strings.Contains(text, "tls:"), strings.Contains(text, "x509:"):
		f.Advice = "rediss:// needs TLS on that port, and a certificate that this machine trusts; redis:// does not use TLS"
	}
	return f
}

// cause returns the innermost error. The others only tell the operation.
func cause(err error) error {
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(err) {
		var op *net.OpError
		if errors.As(err, &op) && err == error(op) {
			break // "connection refused" alone would not tell the address
		}
		err = inner
	}
	return err
}

func examineTLS(o *redis.Options) redisinfo.Finding {
	f := redisinfo.Finding{Name: "TLS", Text: "on"}
	switch {
	case o.TLSConfig != nil:
	case here(o.Addr):
		f.Text = "off, on this machine"
	default:
		f.Level, f.Text = redisinfo.Warn, "off"
		f.Advice = "use rediss://… unless the network is private: it carries the password, sessions and notifications unencrypted"
	}
	return f
}

func examineKeys(cfg config) redisinfo.Finding {
	f := redisinfo.Finding{Name: "keys", Text: fmt.Sprintf("%d for backends (HERALD_API_KEYS), %d for JWTs (HERALD_JWT_KEYS)", cfg.apiKeys.Len(), cfg.jwtKeys.Len())}
	if cfg.requireKeys() != nil {
		f.Level = redisinfo.Warn // the doctor may run on a machine without the secrets
		f.Advice = "set HERALD_API_KEYS, HERALD_JWT_KEYS or HERALD_JWKS_URL: without keys the gateway does not start"
	}
	return f
}

// text returns the diagnosis for people: one line per check, with the advice below it.
func (d diagnosis) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Redis: %s\n\n", d.Redis)
	marks := map[redisinfo.Level]string{redisinfo.OK: "ok", redisinfo.Unknown: "?", redisinfo.Warn: "warn", redisinfo.Fail: "FAIL"}
	counts := map[redisinfo.Level]int{}
	for _, f := range d.Findings {
		counts[f.Level]++
		fmt.Fprintf(&b, "  %-4s  %-22s  %s\n", marks[f.Level], f.Name, f.Text)
		if f.Advice != "" {
			fmt.Fprintf(&b, "        %-22s  → %s\n", "", f.Advice)
		}
	}
	fmt.Fprintf(&b, "\n%d must be changed, %d could be better, %d could not be examined.\n",
		counts[redisinfo.Fail], counts[redisinfo.Warn], counts[redisinfo.Unknown])
	return b.String()
}
