package rules

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// oldest are minimum versions. Older ones have a defect that the code no longer guards
// against, or lack behaviour that it relies on.
var oldest = []struct{ module, version, reason string }{
	{"github.com/valyala/fasthttp", "v1.77.0", "1.51.0, which Fiber asks for, executes a smuggled second request in four ambiguous framings"},
	{"github.com/gofiber/fiber/v2", "v2.52.15", "the bridge from its hijacked connections to WebSocket was measured with this one"},
	{"github.com/redis/go-redis/v9", "v9.23.0", "what a timeout, a lost reply and a reconnect do was measured with this one"},
	{"github.com/coder/websocket", "v1.8.15", "one goroutine per idle connection, and the hand-made upgrade relies on what its Accept reads"},
	{"github.com/golang-jwt/jwt/v5", "v5.3.1", "the checks in auth cover what exactly this one lets through"},
	{"github.com/go-redsync/redsync/v4", "v4.18.1", "the options in lock/acquire.go answer what this one's defaults do"},
	{"github.com/alicebob/miniredis/v2", "v2.40.0", "the embedded Redis needs the script, stream and clock behaviour of this one"},
}

func TestVersionsAreNotTooOld(t *testing.T) {
	for _, o := range oldest {
		got := selected(t, o.module)
		older, err := isOlder(got, o.version)
		if err != nil {
			t.Errorf("%s: %v", o.module, err)
		}
		if older {
			t.Errorf("%s is %s, must be %s or newer: %s", o.module, got, o.version, o.reason)
		}
	}
}

// selected returns the version that the build uses, including replacements.
func selected(t *testing.T, module string) string {
	t.Helper()
	const format = "{{if .Replace}}{{.Replace.Version}}{{else}}{{.Version}}{{end}}"
	cmd := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", format, module)
	cmd.Dir = top
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list -m %s: %v\n%s", module, err, stderr(err))
	}
	return strings.TrimSpace(string(out))
}

// isOlder compares v1.2.3 with v1.2.3. A pre-release is older than its release.
func isOlder(v, than string) (bool, error) {
	a, pre, err := parseVersion(v)
	if err != nil {
		return false, err
	}
	b, _, err := parseVersion(than)
	if err != nil {
		return false, err
	}
	for i := range a {
		if a[i] != b[i] {
			return a[i] < b[i], nil
		}
	}
	return pre, nil
}

func parseVersion(v string) (n [3]int, pre bool, err error) {
	release, _, pre := strings.Cut(v, "-")
	release, ok := strings.CutPrefix(release, "v")
	parts := strings.Split(release, ".")
	if !ok || len(parts) != len(n) {
		return n, pre, fmt.Errorf("%q is not a version", v)
	}
	for i, p := range parts {
		if n[i], err = strconv.Atoi(p); err != nil {
			return n, pre, fmt.Errorf("%q is not a version", v)
		}
	}
	return n, pre, nil
}

func TestIsOlder(t *testing.T) {
	cases := []struct {
		v, than string
		want    bool
	}{
		{"v1.51.0", "v1.77.0", true},
		{"v1.9.0", "v1.77.0", true},
		{"v1.77.0", "v1.77.0", false},
		{"v1.100.0", "v1.77.0", false},
		{"v2.0.0", "v1.77.0", false},
		{"v1.77.0-rc.1", "v1.77.0", true},
		{"v1.78.0-0.20260101000000-abcdef", "v1.77.0", false},
	}
	for _, c := range cases {
		if got, err := isOlder(c.v, c.than); err != nil || got != c.want {
			t.Errorf("isOlder(%s, %s) = %t, %v, want %t", c.v, c.than, got, err, c.want)
		}
	}
	for _, v := range []string{"", "1.2.3", "v1.2", "v1.x.3"} {
		if _, err := isOlder(v, "v1.0.0"); err == nil {
			t.Errorf("%q passes as a version", v)
		}
	}
}
