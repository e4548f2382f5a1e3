//go:build linux

package main

import (
	"fmt"
	"time"

	"herald/loadtest/measure"
	"herald/loadtest/report"
	"herald/loadtest/scenario"
)

// thresholdFlags are what the medians must keep to; where something went wrong,
// every run.
type thresholdFlags struct {
	MaxP50      *time.Duration `group:"Thresholds" name:"max-p50" placeholder:"TIME" help:"Median latency: of delivery, else of connecting."`
	MaxP99      *time.Duration `group:"Thresholds" name:"max-p99" placeholder:"TIME" help:"99th percentile of it."`
	MaxP999     *time.Duration `group:"Thresholds" name:"max-p999" placeholder:"TIME" help:"99.9th percentile of it."`
	MinRate     *float64       `group:"Thresholds" placeholder:"N" help:"Deliveries, or connects, a second."`
	MaxCPU      *time.Duration `group:"Thresholds" name:"max-cpu" placeholder:"TIME" help:"Processor time of the server for each."`
	MaxIdleCPU  *time.Duration `group:"Thresholds" name:"max-idle-cpu" placeholder:"TIME" help:"Processor time of the server for an idle connection, a second."`
	MaxMemory   *float64       `group:"Thresholds" placeholder:"KIB" help:"Resident memory of the server for a connection, in KiB."`
	MaxLost     *float64       `group:"Thresholds" placeholder:"N" help:"Messages that did not arrive, in any run."`
	MaxTwice    *float64       `group:"Thresholds" name:"max-duplicates" placeholder:"N" help:"Messages that came again on the same socket."`
	MaxErrors   *float64       `group:"Thresholds" placeholder:"N" help:"Requests and connects that failed, and messages that could not be sent in time."`
	MaxDisorder *float64       `group:"Thresholds" placeholder:"N" help:"Messages that did not follow the one before on their socket."`
	MaxGrowth   *float64       `group:"Thresholds" placeholder:"PERCENT" help:"Of memory, goroutines and descriptors (soak)."`
}

// threshold is one limit of one number. Of several names the first that was
// measured counts.
type threshold struct {
	flag   string
	names  []string
	limit  float64
	atMost bool
	every  bool // run must keep to it, not only their median
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

// judge holds a result to a threshold. What was not measured has not passed.
func (t threshold) judge(r measure.Result) report.Verdict {
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
	return report.Verdict{OK: ok, Says: fmt.Sprintf("%s is %s, wanted %s %s", m.Name, m.Unit.Format(m.Value), word, m.Unit.Format(t.limit))}
}

// verdicts judges by all thresholds; failed says whether any was missed.
func (f thresholdFlags) verdicts(r measure.Result) (list []report.Verdict, failed bool) {
	for _, t := range f.list() {
		v := t.judge(r)
		list = append(list, v)
		failed = failed || !v.OK
	}
	return list, failed
}
