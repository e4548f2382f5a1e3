package measure

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// Unit is the unit of a number. Times are in seconds, sizes in bytes.
type Unit string

// The units.
const (
	Seconds   Unit = "s"
	Bytes     Unit = "B"
	PerSecond Unit = "/s"
	Share     Unit = "share" // 0 to 1
	Cores     Unit = "cores" // CPU seconds per second
	Times     Unit = "×"
	Plain     Unit = ""
)

// Format formats a value for people.
func (u Unit) Format(v float64) string {
	switch u {
	case Seconds:
		return formatSeconds(v)
	case Bytes:
		return formatBytes(v)
	case PerSecond:
		return digits(v) + "/s"
	case Share:
		return fmt.Sprintf("%.1f %%", v*100)
	case Cores:
		return fmt.Sprintf("%.2f cores", v)
	case Times:
		if v >= 100 {
			return digits(v) + "×"
		}
		return fmt.Sprintf("%.2f×", v)
	}
	return digits(v)
}

func formatSeconds(v float64) string {
	switch a := math.Abs(v); {
	case a == 0:
		return "0"
	case a < 1e-6:
		return fmt.Sprintf("%.0f ns", v*1e9)
	case a < 100e-6:
		return fmt.Sprintf("%.1f µs", v*1e6)
	case a < 1e-3:
		return fmt.Sprintf("%.0f µs", v*1e6)
	case a < 1:
		return fmt.Sprintf("%.3g ms", v*1e3)
	}
	return fmt.Sprintf("%.3g s", v)
}

func formatBytes(v float64) string {
	switch a := math.Abs(v); {
	case a < 1<<10:
		return fmt.Sprintf("%.0f B", v)
	case a < 1<<20:
		return fmt.Sprintf("%.3g KiB", v/(1<<10))
	case a < 10<<30:
		return fmt.Sprintf("%.4g MiB", v/(1<<20))
	}
	return fmt.Sprintf("%.3g GiB", v/(1<<30))
}

// digits formats a number with separators of thousands.
func digits(v float64) string {
	if math.Abs(v) < 100 && v != math.Trunc(v) {
		return fmt.Sprintf("%.3g", v)
	}
	s := fmt.Sprintf("%.0f", v)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Metric is a named number of a run.
type Metric struct {
	Name  string  `json:"name"`
	Unit  Unit    `json:"unit"`
	Value float64 `json:"value"`
}

// Curve is a percentile curve of latencies.
type Curve struct {
	Name   string  `json:"name"`
	Count  int64   `json:"count"`
	Points []Point `json:"points"`
}

// Step is the server's memory at a number of connections.
type Step struct {
	Connections int     `json:"connections"`
	RSS         float64 `json:"rss"` // bytes
}

// Run is one run of a scenario.
type Run struct {
	Metrics  []Metric `json:"metrics"`
	Timeline []Sample `json:"timeline,omitempty"`
	Memory   []Step   `json:"memory,omitempty"`
	Notes    []string `json:"notes,omitempty"` // warnings that affect the numbers

	latencies map[string]*Histogram
}

// Add adds a metric.
func (r *Run) Add(name string, unit Unit, value float64) {
	r.Metrics = append(r.Metrics, Metric{name, unit, value})
}

// Note adds a warning, unless it exists.
func (r *Run) Note(format string, args ...any) {
	if note := fmt.Sprintf(format, args...); !slices.Contains(r.Notes, note) {
		r.Notes = append(r.Notes, note)
	}
}

// Latency adds the quantiles of a histogram as metrics, and its curve to the result.
func (r *Run) Latency(name string, h *Histogram) {
	if h.Count() == 0 {
		return
	}
	if r.latencies == nil {
		r.latencies = map[string]*Histogram{}
	}
	r.latencies[name] = h
	for _, q := range quantiles {
		r.Add(name+" "+q.name, Seconds, h.Quantile(q.q).Seconds())
	}
	r.Add(name+" max", Seconds, h.Max().Seconds())
}

var quantiles = []struct {
	name string
	q    float64
}{{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99.9", 0.999}}

// Get returns the metric with that name.
func (r *Run) Get(name string) (Metric, bool) { return find(r.Metrics, name) }

func find(list []Metric, name string) (Metric, bool) {
	for _, m := range list {
		if m.Name == name {
			return m, true
		}
	}
	return Metric{}, false
}

// Result is the result of several runs of one scenario on one server.
type Result struct {
	Server   string            `json:"server"`
	Scenario string            `json:"scenario"`
	Settings map[string]string `json:"settings,omitempty"`
	Runs     []*Run            `json:"runs"`
	Medians  []Metric          `json:"medians"`
	Curves   []Curve           `json:"curves,omitempty"` // of all runs together
	Took     float64           `json:"took"`             // s
}

// NewResult computes the median of each metric, and one percentile curve per latency
// over all runs.
func NewResult(server, scenario string, settings map[string]string, runs []*Run, took time.Duration) Result {
	r := Result{Server: server, Scenario: scenario, Settings: settings, Runs: runs, Took: took.Seconds()}
	values := map[string][]float64{}
	for _, run := range runs {
		for _, m := range run.Metrics {
			if values[m.Name] == nil {
				r.Medians = append(r.Medians, m)
			}
			values[m.Name] = append(values[m.Name], m.Value)
		}
	}
	for i := range r.Medians {
		r.Medians[i].Value = Median(values[r.Medians[i].Name])
	}
	r.Curves = curves(runs)
	return r
}

func curves(runs []*Run) (list []Curve) {
	merged := map[string]*Histogram{}
	var names []string
	for _, run := range runs {
		for name, h := range run.latencies {
			if merged[name] == nil {
				merged[name] = NewHistogram()
				names = append(names, name)
			}
			merged[name].Merge(h)
		}
	}
	slices.SortFunc(names, byImportance)
	for _, name := range names {
		list = append(list, Curve{name, merged[name].Count(), merged[name].Curve()})
	}
	return list
}

// byImportance sorts the latencies that users notice first.
func byImportance(a, b string) int {
	rank := func(name string) int {
		if i := slices.Index(important, name); i >= 0 {
			return i
		}
		return len(important)
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b))
}

var important = []string{"delivery", "broadcast", "connect", "response"}

// Median returns the median of a metric over the runs.
func (r Result) Median(name string) (float64, bool) {
	m, ok := find(r.Medians, name)
	return m.Value, ok
}

// Most returns the highest value of a metric in any run.
func (r Result) Most(name string) float64 {
	most := math.Inf(-1)
	for _, run := range r.Runs {
		if m, ok := run.Get(name); ok {
			most = max(most, m.Value)
		}
	}
	return most
}

// Notes returns the distinct notes of all runs.
func (r Result) Notes() (notes []string) {
	for _, run := range r.Runs {
		for _, n := range run.Notes {
			if !slices.Contains(notes, n) {
				notes = append(notes, n)
			}
		}
	}
	return notes
}

// Median returns the median of values; NaN if there are none.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(values))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}
