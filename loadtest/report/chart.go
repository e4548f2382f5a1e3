package report

import (
	"fmt"
	"html/template"
	"math"
	"strings"

	"herald/loadtest/measure"
)

// Kind is what a chart's axes are.
type Kind int

// The kinds of charts.
const (
	OverTime      Kind = iota // x: seconds, y from 0
	ByConnections             // x: connections, y from 0
	Percentiles               // x: quantiles by nines, y: seconds on a logarithmic axis
)

// Chart is lines in one pair of axes.
type Chart struct {
	Title  string
	About  string // a sentence below the title
	Kind   Kind
	Unit   measure.Unit // of y
	Series []Series
}

// Series is one line.
type Series struct {
	Name   string
	Color  int // index into the page's palette
	Points []XY
}

// XY is one point.
type XY struct{ X, Y float64 }

// The drawing's size and the room for its axes, in units of its own.
const (
	width, height = 560.0, 260.0
	left, right   = 66.0, 16.0
	top, bottom   = 10.0, 34.0
)

// Empty reports whether there is nothing to draw.
func (c Chart) Empty() bool {
	for _, s := range c.Series {
		if len(s.Points) > 1 {
			return false
		}
	}
	return true
}

// scales fits the axes to the points.
func (c Chart) scales() (x, y scale) {
	least, most, mostX := math.Inf(1), 0.0, 0.0
	for _, s := range c.Series {
		for _, p := range s.Points {
			least, most, mostX = math.Min(least, p.Y), math.Max(most, p.Y), math.Max(mostX, p.X)
		}
	}
	switch c.Kind {
	case Percentiles:
		return nines(mostX), logarithmic(math.Max(least, 1e-6), math.Max(most, 1e-5), c.Unit)
	case ByConnections:
		return linear(mostX, measure.Plain), linear(most, c.Unit)
	}
	return exact(mostX, measure.Plain), linear(most, c.Unit)
}

// SVG draws the chart. Its colours are the page's.
func (c Chart) SVG() template.HTML {
	x, y := c.scales()
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %.0f %.0f" role="img" aria-label="%s">`, width, height, template.HTMLEscapeString(c.Title))
	for _, t := range y.ticks {
		at := py(y, t.Value)
		fmt.Fprintf(&b, `<line class="grid" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>`, left, width-right, at, at)
		fmt.Fprintf(&b, `<text class="y" x="%.1f" y="%.1f">%s</text>`, left-8, at+4, template.HTMLEscapeString(t.Label))
	}
	for _, t := range x.ticks {
		at := px(x, t.Value)
		fmt.Fprintf(&b, `<line class="mark" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>`, at, at, height-bottom, height-bottom+5)
		fmt.Fprintf(&b, `<text class="x" x="%.1f" y="%.1f">%s</text>`, at, height-bottom+20, template.HTMLEscapeString(t.Label))
	}
	fmt.Fprintf(&b, `<line class="axis" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>`, left, width-right, height-bottom, height-bottom)
	for _, s := range c.Series {
		fmt.Fprintf(&b, `<path class="line c%d" d="%s"/>`, s.Color, path(x, y, s.Points))
	}
	fmt.Fprintf(&b, `<line class="cross" x1="0" x2="0" y1="%.1f" y2="%.1f" visibility="hidden"/></svg>`, top, height-bottom)
	return template.HTML(b.String()) // every text in it was escaped
}

func px(s scale, v float64) float64 { return left + s.at(v)*(width-left-right) }
func py(s scale, v float64) float64 { return height - bottom - s.at(v)*(height-top-bottom) }

func path(x, y scale, points []XY) string {
	var b strings.Builder
	for i, p := range points {
		command := 'L'
		if i == 0 {
			command = 'M'
		}
		fmt.Fprintf(&b, "%c%.1f %.1f", command, px(x, p.X), py(y, p.Y))
	}
	return b.String()
}

// Hover is what the page's script shows under the pointer: for each line its
// name, colour, and for each point where it is and what to say.
func (c Chart) Hover() []Hovered {
	x, _ := c.scales()
	var list []Hovered
	for _, s := range c.Series {
		h := Hovered{Name: s.Name, Color: s.Color}
		for _, p := range s.Points {
			h.At = append(h.At, math.Round(px(x, p.X)*10)/10)
			h.Says = append(h.Says, c.Unit.Format(p.Y))
			h.Where = append(h.Where, c.where(p.X))
		}
		list = append(list, h)
	}
	return list
}

// Hovered is one line of a chart, for the page's script.
type Hovered struct {
	Name  string    `json:"name"`
	Color int       `json:"color"`
	At    []float64 `json:"at"`
	Where []string  `json:"where"`
	Says  []string  `json:"says"`
}

func (c Chart) where(x float64) string {
	switch c.Kind {
	case Percentiles:
		return fmt.Sprintf("%.5g %%", x*100)
	case ByConnections:
		return measure.Plain.Format(x) + " connections"
	}
	return fmt.Sprintf("%.1f s", x)
}

// XLabel names the x axis.
func (c Chart) XLabel() string {
	switch c.Kind {
	case Percentiles:
		return "share of messages that took no longer"
	case ByConnections:
		return "open connections"
	}
	return "seconds"
}
