//go:build linux

package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"herald/loadtest/measure"
	"herald/loadtest/report"
	"herald/loadtest/scenario"
	"herald/loadtest/target"
)

// rowSpec describes one row of the table: a metric of a part, and its goals.
type rowSpec struct {
	name   string
	part   string
	metric string
	unit   measure.Unit
	more   bool // more is better
	floor  bool // divided by the cost of one raw write
	least  goal
	aim    goal
}

// goal is a limit on the gateway's value, or on its ratio to the Node baseline.
type goal struct {
	limit float64
	ratio bool
}

func ratio(v float64) goal { return goal{v, true} }
func value(v float64) goal { return goal{limit: v} }

const micro = 1e-6

// rowSpecs holds the rows of the table.
var rowSpecs = []rowSpec{
	{name: "HTTP publish → socket, {publishers} publishers", part: scenario.PartPublish, metric: scenario.Rate, unit: measure.PerSecond, more: true, least: ratio(4.5), aim: ratio(6.5)},
	{name: "… server CPU per message", part: scenario.PartPublish, metric: scenario.CPUPerMessage, unit: measure.Seconds, least: ratio(0.20), aim: ratio(0.13)},
	{name: "… Redis CPU per message", part: scenario.PartPublish, metric: scenario.RedisPerMsg, unit: measure.Seconds},
	{name: "p50 at 1,000 publishes/s", part: scenario.PartFixedRate, metric: scenario.Delivery + " p50", unit: measure.Seconds},
	{name: "p99 at 1,000 publishes/s", part: scenario.PartFixedRate, metric: scenario.Delivery + " p99", unit: measure.Seconds, least: value(800 * micro), aim: value(450 * micro)},
	{name: "… everything on one CPU that is kept awake: p50", part: scenario.PartConfined, metric: scenario.Delivery + " p50", unit: measure.Seconds},
	{name: "… p99", part: scenario.PartConfined, metric: scenario.Delivery + " p99", unit: measure.Seconds, least: value(800 * micro), aim: value(450 * micro)},
	{name: "Redis channel → sockets", part: scenario.PartRedis, metric: scenario.Rate, unit: measure.PerSecond, more: true, least: ratio(1.8), aim: ratio(2.5)},
	{name: "… server CPU per message", part: scenario.PartRedis, metric: scenario.CPUPerMessage, unit: measure.Seconds, least: ratio(0.55), aim: ratio(0.40)},
	{name: "stored frames of another node → sockets", part: scenario.PartStored, metric: scenario.Rate, unit: measure.PerSecond, more: true},
	{name: "… CPU per message of the delivering node", part: scenario.PartStored, metric: scenario.CPUPerMessage, unit: measure.Seconds},
	{name: "one user, {sockets} sockets, 1 in flight: CPU per delivery", part: scenario.PartFanout1, metric: scenario.CPUPerMessage, unit: measure.Seconds},
	{name: "… relative to one raw write of a ready frame", part: scenario.PartFanout1, metric: scenario.CPUPerMessage, unit: measure.Times, floor: true, least: value(1.4), aim: value(1.1)},
	{name: "… 4 in flight: CPU per delivery", part: scenario.PartFanout4, metric: scenario.CPUPerMessage, unit: measure.Seconds, least: ratio(0.65), aim: ratio(0.5)},
	{name: "… 4 in flight: deliveries", part: scenario.PartFanout4, metric: scenario.Rate, unit: measure.PerSecond, more: true},
	{name: "connects (Herald: with a session lookup in Redis)", part: scenario.PartConnect, metric: scenario.Rate, unit: measure.PerSecond, more: true},
	{name: "… server CPU per connect", part: scenario.PartConnect, metric: scenario.CPUPerConnect, unit: measure.Seconds, least: ratio(1.0), aim: ratio(0.6)},
	{name: "… Redis CPU per connect", part: scenario.PartConnect, metric: scenario.RedisPerConn, unit: measure.Seconds},
	{name: "RSS per idle connection, {idle} of them, after use", part: scenario.PartIdle, metric: scenario.RSSPerConn, unit: measure.Bytes, least: ratio(1.0), aim: value(2 << 10)},
	{name: "CPU per idle connection and second", part: scenario.PartIdle, metric: scenario.CPUPerIdle, unit: measure.Seconds, least: value(2.2 * micro), aim: value(1.7 * micro)},
}

// parts lists the parts of a comparison in the order of the table.
var parts = []string{
	scenario.PartPublish, scenario.PartFixedRate, scenario.PartConfined, scenario.PartRedis, scenario.PartStored, scenario.PartFanout1, scenario.PartFanout4,
	scenario.PartConnect, scenario.PartIdle,
}

// report builds the table and collects the results behind it.
func (c *comparison) report() *report.Report {
	r := &report.Report{Title: "Herald beside other servers", Table: &report.Table{Against: target.Baseline.Title()}}
	medians := map[target.Kind]map[string]measure.Result{}
	for _, kind := range c.kinds {
		r.Table.Servers = append(r.Table.Servers, kind.Title())
		r.Table.About = append(r.Table.About, kind.About())
		medians[kind] = map[string]measure.Result{}
		for _, part := range parts {
			if runs := c.runs[kind][part]; len(runs) > 0 {
				medians[kind][part] = measure.NewResult(kind.Title(), part, nil, runs, 0)
				r.Results = append(r.Results, medians[kind][part])
			}
		}
	}
	raw := measure.NewResult("raw writes", scenario.PartRaw, nil, c.raw, 0)
	write, ok := raw.Median(scenario.WritePerFrame)
	if ok {
		r.Results = append(r.Results, raw)
		c.note("One raw write of a ready frame took %s of CPU time.", measure.Seconds.Format(write))
	}
	for _, result := range r.Results {
		for _, n := range general(result.Notes()) {
			c.note("%s", n)
		}
	}
	r.Notes = c.notes
	for _, l := range rowSpecs {
		r.Table.Rows = append(r.Table.Rows, c.row(l, medians, write))
	}
	return r
}

// general returns the notes about the machine, which apply to all results.
func general(notes []string) (list []string) {
	for _, n := range notes {
		if strings.HasPrefix(n, "Other programs") || strings.HasPrefix(n, "All cores") {
			list = append(list, n)
		}
	}
	return list
}

func (c *comparison) row(l rowSpec, medians map[target.Kind]map[string]measure.Result, write float64) report.Row {
	o := c.plan.suite
	name := strings.NewReplacer(
		"{publishers}", thousands(o.Publishers), "{sockets}", thousands(o.Connections), "{idle}", thousands(c.plan.idle.connections),
	).Replace(l.name)
	row := report.Row{Name: name, Unit: l.unit, More: l.more}
	var ours, theirs *float64
	for _, kind := range c.kinds {
		var v *float64
		if m, ok := medians[kind][l.part].Median(l.metric); ok {
			if l.floor {
				m /= write
			}
			v = &m
		}
		row.Values = append(row.Values, v)
		switch kind {
		case target.Herald:
			ours = v
		case target.Baseline:
			theirs = v
		}
	}
	if ours != nil && theirs != nil && *theirs > 0 {
		q := *ours / *theirs
		row.Ratio = &q
	}
	if l.least != (goal{}) {
		row.Goal, row.Aim, row.Met = l.text(l.least), l.text(l.aim), l.met(ours, row.Ratio)
	}
	return row
}

func thousands(n int) string { return measure.Plain.Format(float64(n)) }

// met returns "no", "yes" or "aim" for the goals that are reached; "" if unknown.
func (l rowSpec) met(ours, ratio *float64) string {
	least, known := l.reached(l.least, ours, ratio)
	aim, _ := l.reached(l.aim, ours, ratio)
	switch {
	case !known:
		return ""
	case aim && least:
		return "aim"
	case least:
		return "yes"
	}
	return "no"
}

func (l rowSpec) text(g goal) string {
	sign, unit := "≤", l.unit
	if l.more {
		sign = "≥"
	}
	if g.ratio {
		unit = measure.Times
	}
	return sign + " " + unit.Format(g.limit)
}

func (l rowSpec) reached(g goal, ours, ratio *float64) (ok, known bool) {
	v := ours
	if g.ratio {
		v = ratio
	}
	if v == nil {
		return false, false
	}
	if l.more {
		return *v >= g.limit, true
	}
	return *v <= g.limit, true
}

// printTable writes the table as text.
func printTable(w io.Writer, r *report.Report) {
	fmt.Fprintf(w, "%s, in %s. Ratio: %s to “%s”.\n\n", r.Title, time.Duration(r.Took*1e9).Round(time.Second), r.Table.Servers[0], r.Table.Against)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "\t%s\tratio\tgoal\t\n", strings.Join(r.Table.Servers, "\t"))
	for _, row := range r.Table.Rows {
		fmt.Fprint(t, row.Name)
		for i := range r.Table.Servers {
			fmt.Fprintf(t, "\t%s", row.Value(i))
		}
		goal := ""
		if row.Goal != "" {
			goal = row.Goal + ", aim " + row.Aim
		}
		fmt.Fprintf(t, "\t%s\t%s\t%s\n", row.RatioText(), goal, map[string]string{"no": "✗", "yes": "✓", "aim": "✓✓"}[row.Met])
	}
	_ = t.Flush()
	fmt.Fprintln(w)
	for i, server := range r.Table.Servers {
		fmt.Fprintf(w, "%s: %s\n", server, r.Table.About[i])
	}
	for _, n := range r.Notes {
		fmt.Fprintln(w, "\n! "+n)
	}
	for _, result := range r.Results {
		for _, n := range result.Notes() {
			if len(general([]string{n})) == 0 {
				fmt.Fprintf(w, "\n! %s, %s: %s\n", result.Server, result.Scenario, n)
			}
		}
	}
}
