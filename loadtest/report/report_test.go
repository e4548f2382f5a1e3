package report

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"herald/loadtest/measure"
)

// example is a comparison of two servers; one has a name that needs escaping.
func example() *Report {
	run := func(rate float64) *measure.Run {
		r, h := &measure.Run{}, measure.NewHistogram()
		for i := range 1000 {
			h.Record(time.Duration(i) * time.Microsecond)
		}
		r.Add("rate", measure.PerSecond, rate)
		r.Latency("delivery", h)
		r.Note("Noisy & loud.")
		for i := range 20 {
			r.Timeline = append(r.Timeline, measure.Sample{At: float64(i), Sent: rate, Received: rate, ServerCPU: 0.5, RSS: 1e8})
			r.Memory = append(r.Memory, measure.Step{Connections: i * 100, RSS: 1e7 * float64(i+1)})
		}
		return r
	}
	v, w := 1234.5, 0.0
	r := &Report{
		Title: "A & B", Command: "go run ./loadtest <x>", Started: time.Unix(0, 0).UTC(), Took: 61.5, Machine: []Fact{{"Processor", "2 × <fast>"}},
		Table: &Table{Servers: []string{"A", "</script><b>"}, About: []string{"a", "b"}, Against: "B", Rows: []Row{
			{Name: "rate", Unit: measure.PerSecond, Values: []*float64{&v, nil}, Ratio: &v, Goal: "≥ 2×", Met: "aim", More: true},
			{Name: "zero", Unit: measure.Seconds, Values: []*float64{&w, &w}},
		}},
		Verdicts: []Verdict{{"rate is high", true}, {"p99 is <late>", false}},
	}
	for _, server := range r.Table.Servers {
		for _, part := range []string{"publish", "fixed rate", "idle"} {
			r.Results = append(r.Results, measure.NewResult(server, part, map[string]string{"users": "5"}, []*measure.Run{run(10), run(12), run(11)}, time.Second))
		}
	}
	return r
}

func render(t *testing.T, r *Report) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.WriteHTML(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

var outside = regexp.MustCompile(`(?i)\b(src|href|url|import|fetch)\s*[=(]|https?://|//[a-z0-9-]+\.[a-z]`)

func TestPageIsSelfContained(t *testing.T) {
	html := render(t, example())
	if len(html) > 1<<20 {
		t.Errorf("%d bytes", len(html))
	}
	if !strings.Contains(html, "Copyright (c) 2022 Leon Sorokin") {
		t.Error("the licence of uPlot is missing")
	}
	if found := outside.FindString(strings.Replace(html, asset("uplot/uPlot.iife.min.js"), "", 1)); found != "" {
		t.Errorf("the page refers to %q", found)
	}
	if !strings.Contains(html, "default-src 'none'") {
		t.Error("the Content-Security-Policy allows loading")
	}
}

func TestPageShowsAndEscapes(t *testing.T) {
	html := render(t, example())
	for _, want := range []string{
		"A &amp; B", "1,234/s", "aim reached", "p99 is &lt;late&gt;", "Noisy &amp; loud.", "Latency at the same rate", "Memory by connections",
		"Maximum throughput", "2 × &lt;fast&gt;", "1m1.5s", "prefers-color-scheme: dark", "&lt;/script&gt;",
	} {
		if want == "aim reached" {
			want = `class="goal aim"`
		}
		if !strings.Contains(html, want) {
			t.Errorf("%q is missing", want)
		}
	}
	if strings.Contains(html, "</script><b>") || strings.Contains(html, "ZgotmplZ") || strings.Contains(html, "NaN") || strings.Contains(html, "Inf") {
		t.Error("something is not escaped, or not a number")
	}
}

func TestPageOfASingleScenario(t *testing.T) {
	r := example()
	r.Table, r.Results = nil, r.Results[:1]
	html := render(t, r)
	for _, want := range []string{`class="tiles"`, "CPU", "<details open>", "Throughput"} {
		if !strings.Contains(html, want) {
			t.Errorf("%q is missing", want)
		}
	}
	r.Results = []measure.Result{measure.NewResult("s", "idle", nil, nil, 0)}
	render(t, r) // nothing measured: still a page
}

// A value that was never measured, or once, is not drawn.
func TestCharts(t *testing.T) {
	r := example()
	titles := func() (list []string) {
		for _, c := range r.charts() {
			list = append(list, c.Title)
		}
		return list
	}
	for _, run := range r.Results[0].Runs {
		run.Memory = append(run.Memory, measure.Step{Connections: 1900, RSS: 3e8}) // after use
	}
	if got := titles(); len(got) != 4 {
		t.Errorf("a comparison: %q", got)
	}
	r.Table, r.Results = nil, r.Results[:1]
	if got := titles(); !slices.Equal(got, []string{"Latency", "Throughput", "Memory by connections", "CPU", "Memory over time"}) {
		t.Errorf("a scenario: %q", got)
	}
	for _, c := range r.charts() {
		for _, s := range c.Series {
			if c.Kind == ByConnections && (len(s.X) != 20 || s.Y[19] != 3e8) {
				t.Errorf("%+v", s)
			}
			if len(s.X) != len(s.Y) || !slices.IsSorted(s.X) || s.Name == "Redis" {
				t.Errorf("%s: %+v", c.Title, s)
			}
		}
	}
	run := r.Results[0].Runs[0]
	run.Timeline, run.Memory = run.Timeline[:1], nil
	r.Results[0].Runs = []*measure.Run{run}
	if got := titles(); !slices.Equal(got, []string{"Latency"}) {
		t.Errorf("one sample: %q", got)
	}
}

func TestRow(t *testing.T) {
	a, b := 10.0, 40.0
	r := Row{Unit: measure.PerSecond, Values: []*float64{&a, &b, nil}}
	if r.Value(0) != "10/s" || r.Value(2) != "–" || r.Value(9) != "–" || r.Bar(0) != 25 || r.Bar(2) != 0 || r.RatioText() != "–" {
		t.Errorf("%q %q %v", r.Value(0), r.Value(2), r.Bar(0))
	}
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	jsonFile, htmlFile := filepath.Join(dir, "r.json"), filepath.Join(dir, "r.html")
	if err := example().Write(jsonFile, htmlFile); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(jsonFile)
	if err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(b, &back); err != nil || len(back.Results) != 6 || back.Results[0].Runs[2].Metrics[0].Value != 11 || *back.Table.Rows[0].Ratio != 1234.5 {
		t.Errorf("%v, %+v", err, back)
	}
	if _, err := os.Stat(htmlFile); err != nil {
		t.Error(err)
	}
	if err := example().Write("", filepath.Join(dir, "no", "where.html")); err == nil {
		t.Error("no error for a file that cannot be written")
	}
	if err := example().Write("", ""); err != nil {
		t.Error(err)
	}
}
