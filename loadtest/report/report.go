// Package report writes the results of a measurement as JSON and as a self-contained
// HTML page.
package report

import (
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"os"
	"time"

	"herald/loadtest/measure"
)

// Report holds the results of one execution of loadtest.
type Report struct {
	Title    string           `json:"title"`
	Command  string           `json:"command"`
	Started  time.Time        `json:"started"`
	Took     float64          `json:"took"` // s
	Machine  []Fact           `json:"machine"`
	Table    *Table           `json:"table,omitempty"` // comparison only
	Verdicts []Verdict        `json:"verdicts,omitempty"`
	Results  []measure.Result `json:"results"`
	Notes    []string         `json:"notes,omitempty"` // warnings that affect all results
}

// Fact is a property of the machine or the version of a program.
type Fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Verdict is the result of a threshold.
type Verdict struct {
	Says string `json:"says"` // a sentence with the numbers
	OK   bool   `json:"ok"`
}

// Table compares servers.
type Table struct {
	Servers []string `json:"servers"` // the gateway first
	About   []string `json:"about"`   // one sentence per server
	Against string   `json:"against"` // the server that ratios refer to
	Rows    []Row    `json:"rows"`
}

// Row is one metric of all servers.
type Row struct {
	Name   string       `json:"name"`
	Unit   measure.Unit `json:"unit"`
	Values []*float64   `json:"values"`         // by server; nil: not measured
	Ratio  *float64     `json:"ratio"`          // gateway to Against
	Goal   string       `json:"goal,omitempty"` // in words
	Aim    string       `json:"aim,omitempty"`  // in words
	Met    string       `json:"met,omitempty"`  // "no", "yes" or "aim"; "" without a goal
	More   bool         `json:"more"`           // more is better
}

// Value returns the formatted value of server i.
func (r Row) Value(i int) string {
	if !r.Known(i) {
		return "–"
	}
	return r.Unit.Format(*r.Values[i])
}

// Known reports whether server i has a value.
func (r Row) Known(i int) bool { return i < len(r.Values) && r.Values[i] != nil }

// RatioText returns the formatted ratio.
func (r Row) RatioText() string {
	if r.Ratio == nil {
		return "–"
	}
	return measure.Times.Format(*r.Ratio)
}

// Bar returns the length of a bar in percent of the longest in the row.
func (r Row) Bar(i int) float64 {
	most := 0.0
	for _, v := range r.Values {
		if v != nil {
			most = max(most, *v)
		}
	}
	if !r.Known(i) || most == 0 {
		return 0
	}
	return 100 * *r.Values[i] / most
}

// WriteJSON writes the report as JSON.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	e.SetEscapeHTML(false)
	return e.Encode(r)
}

//go:embed page.html page.css page.js uplot
var files embed.FS

var page = template.Must(template.New("page.html").Funcs(template.FuncMap{
	"css": func() template.CSS { return template.CSS(asset("uplot/uPlot.min.css") + asset("page.css")) },
	"js": func() template.JS {
		return template.JS("/*!\nuPlot: " + asset("uplot/LICENSE") + "\n*/\n" + asset("uplot/uPlot.iife.min.js") + asset("page.js"))
	},
	"seconds": func(v float64) string {
		return (time.Duration(v*1e3) * time.Millisecond).Round(time.Second / 10).String()
	},
}).ParseFS(files, "page.html"))

func asset(name string) string {
	b, err := files.ReadFile(name)
	if err != nil {
		panic(err) // it is embedded
	}
	return string(b)
}

// WriteHTML writes the report as a page.
func (r *Report) WriteHTML(w io.Writer) error {
	return page.Execute(w, struct {
		*Report
		Charts   []Chart
		Sections []section
	}{r, r.charts(), sections(r.Results)})
}

// Write writes the report to files; "" skips one.
func (r *Report) Write(jsonFile, htmlFile string) error {
	for _, out := range []struct {
		name  string
		write func(io.Writer) error
	}{{jsonFile, r.WriteJSON}, {htmlFile, r.WriteHTML}} {
		if out.name == "" {
			continue
		}
		if err := writeFile(out.name, out.write); err != nil {
			return fmt.Errorf("report: %w", err)
		}
	}
	return nil
}

func writeFile(name string, write func(io.Writer) error) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	if err := write(f); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}
