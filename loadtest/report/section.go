package report

import (
	"slices"
	"strings"

	"herald/loadtest/measure"
)

// section is a result prepared for the page.
type section struct {
	measure.Result
	Tiles     []measure.Metric // most important metrics
	Latencies []latency
	Rest      []number
}

// latency is a row of the table of latencies.
type latency struct {
	Name   string
	Values []string // by quantile; "": not measured
}

// number is a row of the other metrics, with each run's value if there are several.
type number struct {
	measure.Metric
	Runs []string
}

// headlines lists the metrics for the tiles, the most important first.
var headlines = []string{
	"rate", "delivery p99", "connect p99", "cpu per message", "cpu per connect", "redis cpu per message", "rss per connection",
	"cpu per idle connection", "caught up after", "rss growth", "slow sockets closed", "lost",
}

const mostTiles = 5

// Quantiles returns the columns of the table of latencies.
func (section) Quantiles() []string { return []string{"p50", "p90", "p99", "p99.9", "max"} }

func sections(results []measure.Result) (list []section) {
	for _, r := range results {
		list = append(list, newSection(r))
	}
	return list
}

func newSection(r measure.Result) section {
	s := section{Result: r}
	for _, name := range headlines {
		if i := slices.IndexFunc(r.Medians, func(m measure.Metric) bool { return m.Name == name }); i >= 0 && len(s.Tiles) < mostTiles {
			s.Tiles = append(s.Tiles, r.Medians[i])
		}
	}
	for _, m := range r.Medians {
		name, quantile, ok := cutLast(m.Name)
		if column := slices.Index(s.Quantiles(), quantile); ok && column >= 0 {
			s.addLatency(name, column, m)
		} else {
			s.Rest = append(s.Rest, number{m, runs(r, m.Name)})
		}
	}
	return s
}

func cutLast(name string) (before, after string, ok bool) {
	i := strings.LastIndexByte(name, ' ')
	if i < 0 {
		return "", "", false
	}
	return name[:i], name[i+1:], true
}

func (s *section) addLatency(name string, column int, m measure.Metric) {
	i := slices.IndexFunc(s.Latencies, func(l latency) bool { return l.Name == name })
	if i < 0 {
		i = len(s.Latencies)
		s.Latencies = append(s.Latencies, latency{name, make([]string, len(s.Quantiles()))})
	}
	s.Latencies[i].Values[column] = m.Unit.Format(m.Value)
}

func runs(r measure.Result, name string) (list []string) {
	if len(r.Runs) < 2 {
		return nil
	}
	for _, run := range r.Runs {
		text := "–"
		if m, ok := run.Get(name); ok {
			text = m.Unit.Format(m.Value)
		}
		list = append(list, text)
	}
	return list
}
