//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"herald/loadtest/measure"
	"herald/loadtest/report"
	"herald/loadtest/scenario"
	"herald/loadtest/target"
)

// play is one scenario as the command line asks for it.
type play struct {
	name     string
	run      func(context.Context, *scenario.Stage, scenario.Options) (*measure.Run, error)
	defaults loadFlags
	gateway  []string // flags of a gateway that is started for it
	second   bool     // a second node, which the sockets are opened on
	hold     func(context.Context) error

	serverFlags
	loadFlags
	thresholdFlags
	outputFlags
}

// all plays the runs and says what came out.
func (p *play) all(ctx context.Context, line commandLine) error {
	flags := p.loadFlags.over(p.defaults)
	o, err := flags.options()
	if err != nil {
		return err
	}
	if p.Confine && p.Target != "" {
		return fmt.Errorf("%w: --confine needs a server that is started for it, not --target", errUsage)
	}
	o.Hold = p.hold
	began := time.Now()
	pr := newProgress(os.Stderr, p.Quiet)
	runs, server, err := p.runs(ctx, pr, flags.Runs, o)
	pr.close()
	if err != nil {
		return err
	}
	result := measure.NewResult(server, p.name, flags.shown(), runs, time.Since(began))
	verdicts, missed := p.verdicts(result)
	r := &report.Report{
		Title: fmt.Sprintf("%s: %s", server, p.name), Command: string(line), Started: began, Took: time.Since(began).Seconds(),
		Machine: machine(ctx), Results: []measure.Result{result}, Verdicts: verdicts,
	}
	printResult(os.Stdout, result, verdicts)
	if err := r.Write(p.JSON, p.HTML); err != nil {
		return err
	}
	if missed {
		return errMissed
	}
	return nil
}

// runs plays each on a server of its own, unless there is one already.
func (p *play) runs(ctx context.Context, pr *progress, n int, o scenario.Options) (runs []*measure.Run, server string, err error) {
	b := &target.Builder{}
	defer b.Close()
	for i := range n {
		pr.of("%s, run %d of %d", p.name, i+1, n)
		run, name, err := p.once(ctx, pr, b, o)
		if err != nil {
			return nil, "", fmt.Errorf("%s, run %d: %w", p.name, i+1, err)
		}
		runs, server = append(runs, run), name
	}
	return runs, server, nil
}

func (p *play) once(ctx context.Context, pr *progress, b *target.Builder, o scenario.Options) (*measure.Run, string, error) {
	pr.phase("starting the server", 0)
	s, err := p.server(ctx, b)
	if err != nil {
		return nil, "", err
	}
	defer s.Close()
	st, err := scenario.NewStage(s, o.Loops, pr.phase)
	if err != nil {
		return nil, "", err
	}
	defer st.Close()
	if p.Confine {
		release, err := st.Confine()
		if err != nil {
			return nil, "", err
		}
		defer release()
	}
	o, note := o.Fit()
	run, err := p.run(ctx, st, o)
	if err == nil && note != "" {
		run.Note("%s", note)
	}
	return run, s.Name, err
}

func (p *play) server(ctx context.Context, b *target.Builder) (*target.Server, error) {
	if p.Target != "" {
		s, err := target.Connect(p.existing())
		if err != nil {
			err = fmt.Errorf("%w: %w", errUsage, err)
		}
		return s, err
	}
	if p.Program != "" {
		b.Use(p.Program)
	}
	s, err := start(ctx, b, target.Kind(p.Start), p.gateway)
	if err == nil && p.second {
		if err = s.AddNode(ctx, b, p.gateway...); err != nil {
			s.Close()
		}
	}
	return s, err
}

// start starts a server of any kind.
func start(ctx context.Context, b *target.Builder, kind target.Kind, gateway []string) (*target.Server, error) {
	if kind == target.Herald {
		return target.StartGateway(ctx, b, gateway...)
	}
	peers, err := target.NewPeers(ctx)
	if err != nil {
		return nil, err
	}
	return peers.Start(ctx, kind)
}

// shown is what a report says of the load.
func (f loadFlags) shown() map[string]string {
	shown := map[string]string{
		"users": fmt.Sprint(f.Users), "connections": fmt.Sprint(f.Connections), "publishers": fmt.Sprint(f.Publishers),
		"message": fmt.Sprintf("%d bytes", f.Message), "warm-up": f.WarmUp.String(), "duration": f.Duration.String(), "runs": fmt.Sprint(f.Runs),
	}
	if f.Rate > 0 {
		shown["rate"] = measure.PerSecond.Format(f.Rate)
	}
	if f.Confine {
		shown["processors"] = "1, kept awake"
	}
	return shown
}

// printResult writes the medians, and what the runs said where they are several.
func printResult(w io.Writer, r measure.Result, verdicts []report.Verdict) {
	fmt.Fprintf(w, "%s, %s: medians of %d\n\n", r.Server, r.Scenario, len(r.Runs))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, m := range r.Medians {
		fmt.Fprintf(t, "%s\t%s\t", m.Name, m.Unit.Format(m.Value))
		for _, run := range r.Runs {
			if v, ok := run.Get(m.Name); ok && len(r.Runs) > 1 {
				fmt.Fprintf(t, "%s\t", v.Unit.Format(v.Value))
			}
		}
		fmt.Fprintln(t)
	}
	_ = t.Flush()
	for _, n := range r.Notes() {
		fmt.Fprintln(w, "\n! "+n)
	}
	for _, v := range verdicts {
		mark := "✓"
		if !v.OK {
			mark = "✗"
		}
		fmt.Fprintln(w, "\n"+mark+" "+v.Says)
	}
}

// onCommand waits for a line on standard input, after saying that it does.
func onCommand(context.Context) error {
	fmt.Println(holding)
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// holding is what a child says when its sockets are open and used.
const holding = "holding"
