package report

import "herald/loadtest/measure"

// Kind is the x axis of a chart.
type Kind string

// The kinds of charts.
const (
	OverTime      Kind = "time"        // seconds
	ByConnections Kind = "connections" // open connections
	Percentiles   Kind = "percentiles" // quantiles, 0 to 1; y is logarithmic
)

// Chart is a line chart, drawn by the script of the page.
type Chart struct {
	Title  string       `json:"-"`
	About  string       `json:"-"` // a sentence below the title
	Kind   Kind         `json:"kind"`
	Unit   measure.Unit `json:"unit"` // of y
	Series []Series     `json:"series"`
}

// Series is one line; its x ascend.
type Series struct {
	Name  string    `json:"name"`
	Color int       `json:"color"` // index into the page's palette
	X     []float64 `json:"x"`
	Y     []float64 `json:"y"`
}

// Empty reports whether the chart has no series.
func (c Chart) Empty() bool { return len(c.Series) == 0 }

// add adds a line, unless it has fewer than two points.
func (c *Chart) add(name string, color int, x, y []float64) {
	if len(x) > 1 {
		c.Series = append(c.Series, Series{Name: name, Color: color % colors, X: x, Y: y})
	}
}

// colors is the size of the page's palette.
const colors = 6
