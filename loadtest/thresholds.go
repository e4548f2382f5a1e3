//go:build linux

package main

import (
	"fmt"
	"time"

	"herald/loadtest/measure"
	"herald/loadtest/report"
	"herald/loadtest/scenario"
)

// thresholdFlags limit the results. Limits on failures apply to each run, the
// others to the medians.
type thresholdFlags struct {
	MaxP50      *time.Duration `group:"Thresholds" name:"max-p50" placeholder:"TIME" help:"Median latency of delivery, or of connecting where nothing is delivered."`
	MaxP99      *time.Duration `group:"Thresholds" name:"max-p99" placeholder:"TIME" help:"99th percentile of that latency."`
	MaxP999     *time.Duration `group:"Thresholds" name:"max-p999" placeholder:"TIME" help:"99.9th percentile of that latency."`
	MinRate     *float64       `group:"Thresholds" placeholder:"N" help:"Deliveries or connects per second."`
	MaxCPU      *time.Duration `group:"Thresholds" name:"max-cpu" placeholder:"TIME" help:"Server CPU per delivery or connect."`
	MaxIdleCPU  *time.Duration `group:"Thresholds" name:"max-idle-cpu" placeholder:"TIME" help:"Server CPU per idle connection and second."`
	MaxMemory   *float64       `group:"Thresholds" placeholder:"KIB" help:"Resident memory of the server per connection, in KiB."`
	MaxLost     *float64       `group:"Thresholds" placeholder:"N" help:"Messages that did not arrive, in any run."`
	MaxTwice    *float64       `group:"Thresholds" name:"max-duplicates" placeholder:"N" help:"Messages that arrived again on the same socket."`
	MaxErrors   *float64       `group:"Thresholds" placeholder:"N" help:"Failed requests and connects, and messages that could not be sent in time."`
	MaxDisorder *float64       `group:"Thresholds" placeholder:"N" help:"Messages that arrived out of order on their socket."`
	MaxGrowth   *float64       `group:"Thresholds" placeholder:"PERCENT" help:"Growth of memory, goroutines and descriptors (soak)."`
}

// threshold is a limit on one metric: the first of names that was measured.
type threshold struct {
	flag   string
	names  []string
	limit  float64
	atMost bool
	every  bool // applies to each run, not to the median
}

func (f thresholdFlags) list() (list []threshold) {
	add := func(limit *float64, flag string, atMost bool, names ...string) {
		if limit != nil {
			list = append(list, threshold{flag: flag, names: names, limit: *limit, atMost: atMost})
		}
	}
	none := func(limit *float64, flag, name string) {
		if limit != nil {
			list = append(list, threshold{flag: flag, names: []string{name}, limit: *limit, atMost: true, every: true})
		}
	}
	latency := func(limit *time.Duration, flag, quantile string) {
		add(seconds(limit), flag, true, scenario.Delivery+" "+quantile, scenario.Connecting+" "+quantile)
	}
	latency(f.MaxP50, "max-p50", "p50")
	latency(f.MaxP99, "max-p99", "p99")
	latency(f.MaxP999, "max-p999", "p99.9")
	add(f.MinRate, "min-rate", false, scenario.Rate)
	add(seconds(f.MaxCPU), "max-cpu", true, scenario.CPUPerMessage, scenario.CPUPerConnect)
	add(seconds(f.MaxIdleCPU), "max-idle-cpu", true, scenario.CPUPerIdle)
	add(scaled(f.MaxMemory, 1<<10), "max-memory", true, scenario.RSSPerConn)
	none(f.MaxLost, "max-lost", scenario.Lost)
	none(f.MaxTwice, "max-duplicates", scenario.Duplicates)
	none(f.MaxErrors, "max-errors", scenario.Errors)
	none(f.MaxDisorder, "max-disorder", scenario.Disorder)
	for _, name := range []string{scenario.RSSGrowth, scenario.GoroutineRise, scenario.FileGrowth} {
		add(scaled(f.MaxGrowth, 0.01), "max-growth", true, name)
	}
	return list
}

func seconds(d *time.Duration) *float64 {
	if d == nil {
		return nil
	}
	s := d.Seconds()
	return &s
}

func scaled(v *float64, by float64) *float64 {
	if v == nil {
		return nil
	}
	s := *v * by
	return &s
}

// check compares a result with the threshold. A metric that was not measured fails.
func (t threshold) check(r measure.Result) report.Verdict {
	for _, name := range t.names {
		for _, m := range r.Medians {
			if m.Name == name {
				if t.every {
					m.Value = r.Most(name)
				}
				return t.verdict(m)
			}
		}
	}
	return report.Verdict{Says: fmt.Sprintf("--%s: %s was not measured", t.flag, t.names[0])}
}

func (t threshold) verdict(m measure.Metric) report.Verdict {
	ok, word := m.Value <= t.limit, "at most"
	if !t.atMost {
		ok, word = m.Value >= t.limit, "at least"
	}
	return report.Verdict{OK: ok, Says: fmt.Sprintf("%s is %s, required %s %s", m.Name, m.Unit.Format(m.Value), word, m.Unit.Format(t.limit))}
}

// verdicts checks all thresholds; failed reports whether any was missed.
func (f thresholdFlags) verdicts(r measure.Result) (list []report.Verdict, failed bool) {
	for _, t := range f.list() {
		v := t.check(r)
		list = append(list, v)
		failed = failed || !v.OK
	}
	return list, failed
}
