package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"herald/internal/testing/gatewaytest"
	"herald/internal/testing/redistest"
)

// doctor runs `gateway doctor` and returns its exit code and output.
func doctor(t *testing.T, args []string, env ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, problems bytes.Buffer
	cmd := exec.CommandContext(t.Context(), gatewaytest.Build(t), append([]string{"doctor"}, args...)...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, env...)
	cmd.Stdout, cmd.Stderr = &out, &problems
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), problems.String()
}

// diagnosis is the output of `gateway doctor --json`.
type diagnosis struct {
	OK       bool
	Findings []struct{ Name, Level, Text, Advice string }
	Report   *struct{ Info *struct{ Version string } }
}

func (d diagnosis) level(name string) string {
	for _, f := range d.Findings {
		if f.Name == name {
			return f.Level
		}
	}
	return ""
}

// secretURL has a password that must not be shown.
func secretURL(addr string) string { return "REDIS_URL=redis://:secret-password@" + addr }

func TestDoctor(t *testing.T) {
	sound := redistest.Start(t, "--appendonly", "yes", "--maxmemory", "64mb")
	if err := sound.Client().ConfigSet(t.Context(), "requirepass", "secret-password").Err(); err != nil {
		t.Fatal(err)
	}
	evicting := redistest.Start(t, "--maxmemory-policy", "allkeys-lru")
	down, _ := redistest.FreePort()
	for name, tt := range map[string]struct {
		env   []string
		code  int
		check string
		level string
	}{
		"sound":            {[]string{secretURL(sound.Addr), "HERALD_API_KEYS=backend:" + gatewaytest.Key}, 0, "persistence", "ok"},
		"without keys":     {[]string{secretURL(sound.Addr)}, 0, "keys", "warn"},
		"evicting":         {[]string{"REDIS_URL=" + evicting.URL()}, 1, "memory policy", "fail"},
		"wrong password":   {[]string{"REDIS_URL=redis://:secret-other@" + sound.Addr}, 1, "Redis", "fail"},
		"no password":      {[]string{"REDIS_URL=" + sound.URL()}, 1, "Redis", "fail"},
		"no TLS there":     {[]string{"REDIS_URL=rediss://" + evicting.Addr}, 1, "Redis", "fail"},
		"nothing there":    {[]string{"REDIS_URL=redis://127.0.0.1:" + strconv.Itoa(down)}, 1, "Redis", "fail"},
		"replicas missing": {[]string{secretURL(sound.Addr), "HERALD_WAIT_REPLICAS=1"}, 1, "replication", "fail"},
		"too many files":   {[]string{secretURL(sound.Addr), "HERALD_MAX_CONNECTIONS=900000000"}, 1, "open files", "fail"},
		"embedded":         {nil, 0, "Redis", "ok"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, problems := doctor(t, nil, tt.env...)
			if code != tt.code || problems != "" {
				t.Errorf("exit code %d, want %d\n%s%s", code, tt.code, out, problems)
			}
			jsonCode, text, _ := doctor(t, []string{"--json"}, tt.env...)
			var d diagnosis
			if err := json.Unmarshal([]byte(text), &d); err != nil {
				t.Fatalf("%v: %s", err, text)
			}
			if jsonCode != code || d.OK != (code == 0) || d.level(tt.check) != tt.level {
				t.Errorf("--json: exit code %d, %s is %q, want %q:\n%s", jsonCode, tt.check, d.level(tt.check), tt.level, text)
			}
			for _, f := range d.Findings {
				if !strings.Contains(out, f.Name) || !strings.Contains(out, f.Advice) || (f.Level == "ok") != (f.Advice == "") {
					t.Errorf("the text does not tell of %+v:\n%s", f, out)
				}
			}
			if strings.Contains(out+text, "secret-") || strings.Contains(out+text, gatewaytest.Key) {
				t.Errorf("a secret is shown:\n%s", out)
			}
		})
	}
}

func TestDoctorNamesABadSetting(t *testing.T) {
	for name, env := range map[string]string{"REDIS_URL": "REDIS_URL=http://127.0.0.1", "HERALD_PING": "HERALD_PING=0s", "HERALD_NONSENSE": "HERALD_NONSENSE=1"} {
		code, out, problems := doctor(t, nil, env)
		if code != 2 || out != "" || strings.Count(problems, "\n") != 1 || !strings.Contains(problems, name) {
			t.Errorf("%s: exit code %d\n%s%s", env, code, out, problems)
		}
	}
}

// TestStrict: the gateway warns of a Redis that evicts keys, or refuses to start with it.
func TestStrict(t *testing.T) {
	r := redistest.Start(t, "--maxmemory-policy", "allkeys-lfu")
	settings := gatewaytest.Settings(r.URL())
	for _, strict := range []string{"on", "1", "true"} {
		code, output := gatewaytest.Refused(t, append(settings, "HERALD_STRICT="+strict)...)
		if code != 1 || strings.Count(output, "\n") != 1 || !strings.Contains(output, "HERALD_STRICT") || !strings.Contains(output, "allkeys-lfu") {
			t.Errorf("HERALD_STRICT=%s: exit code %d, want 1 and one line that names it:\n%s", strict, code, output)
		}
	}
	g := gatewaytest.Start(t, settings...)
	eventually(t, "a warning is logged", func() bool {
		return strings.Contains(g.Log(), `"level":"WARN","msg":"Redis: memory policy"`) && strings.Contains(g.Log(), "allkeys-lfu")
	})
	if err := r.Client().ConfigSet(t.Context(), "maxmemory-policy", "noeviction").Err(); err != nil {
		t.Fatal(err)
	}
	g = gatewaytest.Start(t, append(settings, "HERALD_STRICT=on")...)
	s := connectAs(t, g, "alice")
	g.Publish("alice", "1")
	s.expect(t, "notification")
	if strings.Contains(g.Log(), "memory policy") {
		t.Errorf("it complains of noeviction:\n%s", g.Log())
	}
}

// TestStrictWithoutRedis: a Redis that does not answer does not stop the start.
func TestStrictWithoutRedis(t *testing.T) {
	r := redistest.Start(t)
	r.Kill()
	g := gatewaytest.Launch(t, gatewaytest.Build(t), append(gatewaytest.Settings(r.URL()), "HERALD_STRICT=on")...)
	r.Restart()
	g.AwaitReady()
}
