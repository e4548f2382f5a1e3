//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"

	"herald/internal/testing/redistest"
	"herald/loadtest/measure"
	"herald/loadtest/report"
	"herald/loadtest/scenario"
	"herald/loadtest/target"
)

// The test binary is also the child process of its tests, as loadtest is its own.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-") {
		os.Exit(run(os.Args[1:]))
	}
	goleak.VerifyTestMain(m)
}

// result returns a result with these medians.
func result(metrics ...measure.Metric) measure.Result {
	return measure.NewResult("s", "publish", nil, []*measure.Run{{Metrics: metrics}}, 0)
}

func TestThresholds(t *testing.T) {
	d, n, percent := 5*time.Millisecond, 1000.0, 10.0
	zero := 0.0
	all := thresholdFlags{MaxP99: &d, MinRate: &n, MaxLost: &zero, MaxCPU: &d}
	good := []measure.Metric{
		{Name: "delivery p99", Unit: measure.Seconds, Value: 0.004}, {Name: "rate", Unit: measure.PerSecond, Value: 1000},
		{Name: "lost", Value: 0}, {Name: "cpu per connect", Unit: measure.Seconds, Value: 0.001},
	}
	verdicts, missed := all.verdicts(result(good...))
	if missed || len(verdicts) != 4 {
		t.Errorf("%v, missed %t", verdicts, missed)
	}
	for i, bad := range []float64{0.0051, 999, 1, 0.006} {
		metrics := slices.Clone(good)
		metrics[i].Value = bad
		if verdicts, missed := all.verdicts(result(metrics...)); !missed {
			t.Errorf("%s %v passes: %v", metrics[i].Name, bad, verdicts)
		}
	}
	for i := range good {
		if _, missed := all.verdicts(result(slices.Delete(slices.Clone(good), i, i+1)...)); !missed {
			t.Errorf("%s passes without having been measured", good[i].Name)
		}
	}
	// A message lost in one of three runs counts, although the median is 0.
	runs := []*measure.Run{{Metrics: good}, {Metrics: good}, {Metrics: slices.Clone(good)}}
	runs[2].Metrics[2].Value = 1
	if verdicts, missed := all.verdicts(measure.NewResult("s", "publish", nil, runs, 0)); !missed || verdicts[3].OK {
		t.Errorf("%v", verdicts)
	}
	growth := thresholdFlags{MaxGrowth: &percent}
	grown := []measure.Metric{{Name: scenario.RSSGrowth, Value: 0.09}, {Name: scenario.GoroutineRise, Value: 0.11}, {Name: scenario.FileGrowth, Value: 0}}
	if verdicts, missed := growth.verdicts(result(grown...)); !missed || !verdicts[0].OK || verdicts[1].OK {
		t.Errorf("%v", verdicts)
	}
	if verdicts, missed := (thresholdFlags{}).verdicts(result()); missed || len(verdicts) != 0 {
		t.Errorf("%v", verdicts)
	}
}

func TestBadUsage(t *testing.T) {
	silence(t)
	for _, args := range [][]string{
		{}, {"no-such"}, {"publish", "--no-such"}, {"publish", "--message=10"}, {"publish", "--users=-1"}, {"fanout", "--in-flight=33"},
		{"publish", "--start=x"}, {"publish", "--max-p99=5"}, {"publish", "--users=1000001"}, {"connect", "--rate=-1"},
		{"publish", "--target=nonsense", "--quiet"}, {"publish", "--target=http://127.0.0.1:1", "--confine", "--quiet"},
	} {
		if code := run(args); code != exitUsage {
			t.Errorf("%q: %d", args, code)
		}
	}
	if code := run([]string{"publish", "--target=http://127.0.0.1:1", "--quiet"}); code != exitFailed {
		t.Errorf("an unreachable target: %d", code)
	}
}

func TestTheSecretIsNotShown(t *testing.T) {
	for _, args := range [][]string{{"publish", "--api-key", "hunter2"}, {"publish", "--api-key=hunter2"}} {
		if got := command(args); strings.Contains(string(got), "hunter2") || !strings.Contains(string(got), "--api-key") {
			t.Errorf("%q", got)
		}
	}
}

func TestGoals(t *testing.T) {
	l := rowSpec{unit: measure.PerSecond, more: true, least: ratio(4.5), aim: ratio(6.5)}
	for q, want := range map[float64]string{4.4: "no", 4.5: "yes", 6.5: "aim"} {
		if met := l.met(new(float64), &q); met != want {
			t.Errorf("%v: %q", q, met)
		}
	}
	if met := l.met(nil, nil); met != "" || l.text(l.least) != "≥ 4.50×" {
		t.Errorf("nothing measured: %q, wanted %s", met, l.text(l.least))
	}
	l = rowSpec{unit: measure.Bytes, least: ratio(1), aim: value(2 << 10)}
	q := 0.9
	for v, want := range map[float64]string{3000: "yes", 2000: "aim"} {
		if met := l.met(&v, &q); met != want || l.text(l.aim) != "≤ 2 KiB" {
			t.Errorf("%v: %q, aim %s", v, met, l.text(l.aim))
		}
	}
}

// Each row shows the metric of its part, and the ratio of Herald to the Node baseline.
func TestTable(t *testing.T) {
	c := &comparison{plan: compareCmd{}.plan(), kinds: []target.Kind{target.Herald, target.Baseline, target.Nchan}, runs: map[target.Kind]map[string][]*measure.Run{}}
	for i, kind := range c.kinds {
		c.runs[kind] = map[string][]*measure.Run{}
		for _, part := range parts {
			r := &measure.Run{}
			r.Add(scenario.Rate, measure.PerSecond, float64(1000*(i+1)))
			r.Add(scenario.CPUPerMessage, measure.Seconds, 10e-6)
			r.Note("Other programs were here.")
			c.done(kind, part, r)
		}
	}
	raw := &measure.Run{}
	raw.Add(scenario.WritePerFrame, measure.Seconds, 5e-6)
	c.raw = []*measure.Run{raw}
	r := c.report()
	row := func(name string) report.Row {
		i := slices.IndexFunc(r.Table.Rows, func(r report.Row) bool { return strings.HasPrefix(r.Name, name) })
		if i < 0 {
			t.Fatalf("no row %q", name)
		}
		return r.Table.Rows[i]
	}
	if got := row("HTTP publish → socket, 32 publishers"); *got.Values[2] != 3000 || *got.Ratio != 0.5 || got.Met != "no" {
		t.Errorf("%+v", got)
	}
	if got := row("… relative to one raw write"); *got.Values[0] != 2 || got.Met != "no" {
		t.Errorf("%+v", got)
	}
	if got := row("RSS per idle connection, 15,000"); got.Values[0] != nil || got.Met != "" {
		t.Errorf("%+v", got)
	}
	if n := len(r.Notes); n != 2 {
		t.Errorf("notes %q", r.Notes)
	}
	var b bytes.Buffer
	printTable(&b, r)
	if !strings.Contains(b.String(), "2.00×") || strings.Count(b.String(), "Other programs") != 1 {
		t.Errorf("%s", &b)
	}
	var cells []string // of the head and the first row
	for _, l := range strings.Split(b.String(), "\n")[2:4] {
		cells = append(cells, strings.FieldsFunc(strings.ReplaceAll(l, "  ", "|"), func(r rune) bool { return r == '|' })...)
	}
	for i := range cells {
		cells[i] = strings.TrimSpace(cells[i])
	}
	if want := []string{
		"Herald", "Node baseline, limiter", "nchan", "ratio", "goal",
		"HTTP publish → socket, 32 publishers", "1,000/s", "2,000/s", "3,000/s", "0.50×", "≥ 4.50×, aim ≥ 6.50×", "✗",
	}; !slices.Equal(cells, want) {
		t.Errorf("the table begins with %q, want %q", cells, want)
	}
}

func TestPlans(t *testing.T) {
	for _, c := range []compareCmd{{}, {Quick: true}} {
		p := c.plan()
		s := p.suite
		// The timed phases of all servers and rounds fit into the limit.
		turn := s.FirstWarmUp + s.Publish + 2*(s.WarmUp+s.FixedRateTime) + s.WarmUp + s.Redis + 2*(s.WarmUp+s.Fanout)
		if total := time.Duration(p.rounds*len(target.Kinds))*turn + p.idle.hold + time.Duration(p.rounds)*p.raw; total > p.limit*9/10 {
			t.Errorf("quick %t: %v of %v", c.Quick, total, p.limit)
		}
	}
	if kinds := (compareCmd{Only: []string{"nchan"}}).kinds(); !slices.Equal(kinds, []target.Kind{target.Herald, target.Nchan}) {
		t.Errorf("%v", kinds)
	}
}

// buffer is a bytes.Buffer that is safe for concurrent use.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestProgressOnATerminal(t *testing.T) {
	var out buffer
	p := startProgress(&out, 80)
	p.of("run %d", 1)
	drawn := func(want string) {
		t.Helper()
		for until := time.Now().Add(10 * time.Second); !strings.Contains(out.String(), want); time.Sleep(time.Millisecond) {
			if time.Now().After(until) {
				t.Fatalf("%q is not drawn: %q", want, out.String())
			}
		}
	}
	for _, takes := range []time.Duration{0, 10 * time.Second, 20 * time.Millisecond} { // a spinner, a bar, a phase that takes longer than estimated
		p.phase(fmt.Sprintf("takes %v", takes), takes)
		drawn(fmt.Sprintf("run 1 · takes %v", takes))
	}
	p.phase(strings.Repeat("long ", 50), time.Second)
	drawn("run 1 · long long")
	p.close()
	for line := range strings.SplitSeq(out.String(), "\r") {
		if line = strings.NewReplacer("\x1b[0K", "", "\x1b[2K", "").Replace(line); utf8.RuneCountInString(line) > 80 {
			t.Errorf("%q is wider than the terminal", line)
		}
	}
	if s := out.String(); strings.Contains(s, "\n") || !strings.HasSuffix(s, "\r") {
		t.Errorf("more than an empty line is left: %q", s)
	}
}

func TestProgressElsewhere(t *testing.T) {
	var out buffer
	p := startProgress(&out, 0)
	p.of("run %d", 1)
	p.phase("starting", 0)
	p.phase("measuring", time.Second)
	p.close()
	if s := out.String(); s != "run 1 · starting\nrun 1 · measuring\n" {
		t.Errorf("%q", s)
	}
}

// silence discards standard output and standard error.
func silence(t *testing.T) {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	out, errs := os.Stdout, os.Stderr
	os.Stdout, os.Stderr = null, null
	t.Cleanup(func() { os.Stdout, os.Stderr = out, errs; _ = null.Close() })
}

// Each scenario runs against a new gateway, from the command line to the exit code and
// the report files.
func TestEndToEnd(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a gateway")
	}
	redistest.Require(t, "redis-server")
	b := &target.Builder{}
	t.Cleanup(b.Close)
	program, err := b.Build(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	silence(t)
	small := []string{"--program=" + program, "--quiet", "--runs=1", "--users=20", "--connections=20", "--publishers=2", "--warm-up=50ms", "--duration=300ms"}
	for _, c := range []struct {
		args []string
		code int
		must []string // metrics
	}{
		{[]string{"publish", "--max-lost=0", "--max-duplicates=0", "--max-errors=0", "--min-rate=1"}, 0, []string{scenario.CPUPerMessage, scenario.RedisPerMsg, "delivery p99"}},
		{[]string{"publish", "--rate=100", "--max-p99=1ns"}, exitMissed, []string{"delivery p99", "sent late p99"}},
		{[]string{"publish", "--rate=100", "--confine", "--max-lost=0", "--max-p99=1ns"}, exitMissed, []string{"delivery p99"}},
		{[]string{"connect", "--max-errors=0", "--max-memory=1"}, exitMissed, []string{scenario.CPUPerConnect}},
		{[]string{"redis", "--rate=500", "--max-lost=0", "--max-disorder=0"}, 0, []string{scenario.Rate}},
		{[]string{"fanout", "--in-flight=4", "--max-lost=0"}, 0, []string{"broadcast p50", scenario.Rate}},
		{[]string{"idle", "--max-errors=0", "--max-lost=0"}, 0, []string{"rss", scenario.CPUPerIdle}},
		{[]string{"storm", "--max-lost=0", "--max-disorder=0"}, 0, []string{scenario.BackAfter, scenario.CaughtUp}},
		{[]string{"slow", "--rate=200", "--message=4096", "--max-lost=0", "--max-disorder=0"}, 0, []string{scenario.SlowClosed, "lost by slow sockets"}},
		{[]string{"soak", "--rate=200", "--max-lost=0", "--max-growth=10"}, exitMissed, []string{"reconnects"}}, // too short to measure growth
		{[]string{"mix", "--rate=200", "--churn=20", "--max-lost=0", "--max-disorder=0", "--max-errors=0"}, 0, []string{"reconnects", "connect p50"}},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			if !slices.Contains(c.args, "--confine") { // which pins this process
				t.Parallel()
			}
			dir := t.TempDir()
			files := []string{"--json=" + filepath.Join(dir, "r.json"), "--html=" + filepath.Join(dir, "r.html")}
			if code := run(slices.Concat(c.args, small, files)); code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			text, err := os.ReadFile(filepath.Join(dir, "r.json"))
			if err != nil {
				t.Fatal(err)
			}
			var r report.Report
			if err := json.Unmarshal(text, &r); err != nil {
				t.Fatal(err)
			}
			for _, name := range c.must {
				if v, ok := r.Results[0].Median(name); !ok || v < 0 {
					t.Errorf("%s: %v, %t", name, v, ok)
				}
			}
			if html, err := os.ReadFile(filepath.Join(dir, "r.html")); err != nil || !bytes.Contains(html, []byte(`class="plot"`)) {
				t.Errorf("the page: %v", err)
			}
		})
	}
}
