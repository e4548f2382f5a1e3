package report

import (
	"math"
	"slices"

	"herald/loadtest/measure"
)

// charts returns the charts to draw: of a comparison one line per server, of a single
// scenario one line per metric.
func (r *Report) charts() (list []Chart) {
	all := r.comparison()
	if r.Table == nil {
		all = nil
		for _, result := range r.Results {
			all = append(all, single(result)...)
		}
	}
	for _, c := range all {
		if !c.Empty() {
			list = append(list, c)
		}
	}
	return list
}

func (r *Report) comparison() []Chart {
	latency := Chart{Title: "Latency at the same rate", About: "From the time a message was due until the socket received it, over all runs.", Kind: Percentiles, Unit: measure.Seconds}
	rate := Chart{Title: "Maximum throughput", About: "Messages received by sockets, in the run with the median rate.", Kind: OverTime, Unit: measure.PerSecond}
	memory := Chart{Title: "Memory by connections", About: "Resident memory of the server while connections open; the last point is after use and a time without traffic.", Kind: ByConnections, Unit: measure.Bytes}
	cpu := Chart{Title: "CPU at maximum throughput", About: "Cores used by the server.", Kind: OverTime, Unit: measure.Cores}
	if r.Table == nil {
		return nil
	}
	for i, server := range r.Table.Servers {
		for _, result := range r.Results {
			if result.Server != server {
				continue
			}
			switch run := medianRun(result); result.Scenario {
			case "fixed rate":
				x, y := curve(result, "delivery")
				latency.add(server, i, x, y)
			case "publish":
				x, y := timeline(run, func(s measure.Sample) float64 { return s.Received })
				rate.add(server, i, x, y)
				x, y = timeline(run, func(s measure.Sample) float64 { return s.ServerCPU })
				cpu.add(server, i, x, y)
			case "idle":
				x, y := steps(run)
				memory.add(server, i, x, y)
			}
		}
	}
	return []Chart{latency, rate, cpu, memory}
}

func single(r measure.Result) []Chart {
	latency := Chart{Title: "Latency", About: "From the time a message was due, over all runs. Delays of the load generator are included.", Kind: Percentiles, Unit: measure.Seconds}
	for i, c := range r.Curves {
		x, y := curve(r, c.Name)
		latency.add(c.Name, i, x, y)
	}
	run := medianRun(r)
	if run == nil {
		return []Chart{latency}
	}
	draw := func(title, about string, unit measure.Unit, lines ...line) Chart {
		c := Chart{Title: title, About: about, Kind: OverTime, Unit: unit}
		for i, l := range lines {
			x, y := timeline(run, l.of)
			c.add(l.name, i, x, y)
		}
		return c
	}
	memory := Chart{Title: "Memory by connections", About: "Resident memory of the server while connections open, and after use.", Kind: ByConnections, Unit: measure.Bytes}
	x, y := steps(run)
	memory.add("resident", 0, x, y)
	list := []Chart{
		latency,
		draw("Throughput", "In the run with the median rate.", measure.PerSecond,
			line{"received", func(s measure.Sample) float64 { return s.Received }}, line{"sent", func(s measure.Sample) float64 { return s.Sent }}),
		memory,
		draw("CPU", "Cores in use.", measure.Cores,
			line{"server", func(s measure.Sample) float64 { return s.ServerCPU }}, line{"Redis", func(s measure.Sample) float64 { return s.RedisCPU }},
			line{"load generator", func(s measure.Sample) float64 { return s.OwnCPU }}),
		draw("Memory over time", "Resident memory of the server.", measure.Bytes, line{"resident", func(s measure.Sample) float64 { return s.RSS }}),
	}
	if slices.Contains(whereCountsMatter, r.Scenario) {
		list = append(list, draw("Connections", "Open connections, descriptors and goroutines of the server.", measure.Plain,
			line{"connections", func(s measure.Sample) float64 { return s.Connections }}, line{"descriptors", func(s measure.Sample) float64 { return s.Files }},
			line{"goroutines", func(s measure.Sample) float64 { return s.Goroutines }}))
	}
	return list
}

// whereCountsMatter lists the scenarios in which sockets drop and reconnect.
var whereCountsMatter = []string{"mix", "soak", "storm"}

type line struct {
	name string
	of   func(measure.Sample) float64
}

// medianRun returns the run with the rate nearest to the median.
func medianRun(r measure.Result) (run *measure.Run) {
	median, _ := r.Median("rate")
	least := math.Inf(1)
	for _, candidate := range r.Runs {
		m, _ := candidate.Get("rate")
		if d := math.Abs(m.Value - median); d < least {
			run, least = candidate, d
		}
	}
	return run
}

// timeline returns a line over time; nil if the value was never measured.
func timeline(run *measure.Run, of func(measure.Sample) float64) (x, y []float64) {
	if run == nil || !slices.ContainsFunc(run.Timeline, func(s measure.Sample) bool { return of(s) != 0 }) {
		return nil, nil
	}
	for _, s := range run.Timeline {
		x, y = append(x, s.At), append(y, of(s))
	}
	return x, y
}

func curve(r measure.Result, name string) (x, y []float64) {
	for _, c := range r.Curves {
		if c.Name != name {
			continue
		}
		for _, p := range c.Points {
			x, y = append(x, p.Quantile), append(y, p.Seconds)
		}
	}
	return x, y
}

// steps returns the last memory sample for each number of connections.
func steps(run *measure.Run) (x, y []float64) {
	if run == nil {
		return nil, nil
	}
	for _, s := range run.Memory {
		if n := len(x); n > 0 && x[n-1] == float64(s.Connections) {
			x, y = x[:n-1], y[:n-1]
		}
		x, y = append(x, float64(s.Connections)), append(y, s.RSS)
	}
	return x, y
}
