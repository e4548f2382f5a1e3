package report

import "herald/loadtest/measure"

// Kind is what a chart's x axis is.
type Kind string

// The kinds of charts.
const (
	OverTime      Kind = "time"        // seconds
	ByConnections Kind = "connections" // that are open
	Percentiles   Kind = "percentiles" // quantiles, 0 to 1; y is logarithmic
)

// Chart is lines in one pair of axes, for the page's script to draw.
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

// Empty reports whether there is nothing to draw.
func (c Chart) Empty() bool { return len(c.Series) == 0 }

// add adds a line, of two points or more.
func (c *Chart) add(name string, color int, x, y []float64) {
	if len(x) > 1 {
		c.Series = append(c.Series, Series{Name: name, Color: color % colors, X: x, Y: y})
	}
}

// colors is how many the page's palette has.
const colors = 6
