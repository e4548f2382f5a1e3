package chaos

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"herald/internal/testing/gatewaytest"
	"herald/internal/testing/redistest"
)

// substitution changes one place of a source file.
type substitution struct {
	file     string // from the top of the checkout
	old, new string
}

// breaks are mistakes that the design rules out. A checker that misses them proves nothing
// when it finds no violation.
var breaks = []struct {
	name     string
	changes  []substitution
	scenario string
	caught   []rule // each of them must be found broken
}{
	{
		name: "announces before it appends",
		changes: []substitution{
			{"broker/store.lua", "  if seq > limit then\n", `
  call('PUBLISH', CHANNEL_PREFIX .. string.match(log, '{(.*)}') .. CHANNEL_SUFFIX, frame)
  if seq > limit then
`},
			{"broker/store.lua", "return int(call('PUBLISH', CHANNEL_PREFIX .. user .. CHANNEL_SUFFIX, frame))", "return '1'"},
		},
		scenario: "Redis out of memory",
		caught:   []rule{ruleTwice, ruleGap},
	},
	{
		name: "reads the log before it joins",
		changes: []substitution{
			{"stream/join.go", "invalid   atomic.Int32 // invalid frames from the client", "invalid atomic.Int32\nbefore broker.State\npages broker.Page"},
			{"stream/join.go", "	if err := st.s.Hub.Join(", `
	st.before, _ = st.state()
	from := st.before.Last
	if a.Resuming {
		from = a.Resume
	}
	st.pages, _ = st.s.Broker.After(st.s.ctx, a.UserID, from, broker.MaxPage, pageBytes)
	if err := st.s.Hub.Join(`},
			{"stream/join.go", "if state, err := st.s.Broker.State(st.s.ctx, a.UserID); err == nil {", "if state := st.before; true {"},
			{"stream/resume.go", "page, ok := st.page()", "page, ok := st.pages, true"},
		},
		scenario: "clients resume over a slow link",
		caught:   []rule{ruleGap},
	},
	{
		name:     "the library retries",
		changes:  []substitution{{"internal/redisx/redisx.go", "o.MaxRetries = -1", "o.MaxRetries = 3"}},
		scenario: "Redis's answers lost",
		caught:   []rule{ruleTwice},
	},
	{
		name:     "nobody watches the subscription",
		changes:  []substitution{{"broker/subscribe.go", "if time.Since(b.start)-heard > 2*b.o.CanaryEvery {", "if heard < 0 {"}},
		scenario: "link forgotten by a firewall",
		caught:   []rule{ruleLate},
	},
	{
		name:     "a publish is never too late",
		changes:  []substitution{{"broker/store.lua", "if now > tonumber(ARGV[5]) then", "if false then"}},
		scenario: "Redis SIGSTOP",
		caught:   []rule{ruleGhost},
	},
}

// TestTheCheckerCatches builds the gateway with each mistake. The scenario, which the
// unchanged gateway passes, must find it.
func TestTheCheckerCatches(t *testing.T) {
	redistest.Require(t, "redis-server")
	z := shortSize
	z.patience = 3 * time.Second
	for _, b := range breaks {
		t.Run(b.name, func(t *testing.T) {
			if !*long {
				t.Parallel()
			}
			// Built without -race: the mistakes are in the logic, and the machine is busy.
			program := gatewaytest.Build(t, "-race=false", "-overlay="+overlay(t, b.changes))
			rec := perform(t, scenarioNamed(t, b.scenario), program, z)
			broken := check(rec.events, rec.Promise)
			t.Logf("%d violations of %v, such as\n%s", len(broken), rulesOf(broken), digest(broken))
			for _, r := range b.caught {
				if !slices.Contains(rulesOf(broken), r) {
					t.Errorf("seed %d: %q was not found broken; history: %s", seed, r, rec.keep(t))
				}
			}
		})
	}
}

func scenarioNamed(t *testing.T, name string) scenario {
	t.Helper()
	i := slices.IndexFunc(scenarios, func(s scenario) bool { return s.name == name })
	if i < 0 {
		t.Fatalf("no scenario is called %q", name)
	}
	return scenarios[i]
}

// overlay writes the changed files and the overlay file for go build. The test fails if a
// text to replace does not occur exactly once: the code has changed, and the build would
// not have the named mistake.
func overlay(t *testing.T, changes []substitution) (path string) {
	t.Helper()
	dir := t.TempDir()
	replace := map[string]string{}
	for _, c := range changes {
		original, err := filepath.Abs(filepath.Join("../..", filepath.FromSlash(c.file)))
		if err != nil {
			t.Fatal(err)
		}
		from := original
		if replace[original] != "" {
			from = replace[original]
		}
		replace[original] = filepath.Join(dir, filepath.Base(original))
		substitute(t, c, from, replace[original])
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func substitute(t *testing.T, c substitution, from, to string) {
	t.Helper()
	source, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(source), c.old); n != 1 {
		t.Fatalf("%s has %q %d times, not once: say anew how to break it", c.file, c.old, n)
	}
	if err := os.WriteFile(to, []byte(strings.Replace(string(source), c.old, c.new, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
}
