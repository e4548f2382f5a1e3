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

// measurement is one scenario with the flags of the command line.
type measurement struct {
	name string
	spec
	scenarioCmd
}

// execute does all runs, prints the result and writes the reports.
func (m *measurement) execute(ctx context.Context, line commandLine) error {
	flags := m.loadFlags.withDefaults(m.defaults, m.spec.runs)
	if err := flags.check(); err != nil {
		return err
	}
	if m.Confine && m.URL != "" {
		return fmt.Errorf("%w: --confine needs a server that loadtest starts, not --target", errUsage)
	}
	if m.Hold {
		flags.Options.Hold = awaitCommand
	}
	began := time.Now()
	pr := newProgress(os.Stderr, m.Quiet)
	runs, server, err := m.doRuns(ctx, pr, flags.Runs, flags.Options)
	pr.close()
	if err != nil {
		return err
	}
	result := measure.NewResult(server, m.name, flags.shown(), runs, time.Since(began))
	verdicts, missed := m.verdicts(result)
	r := &report.Report{
		Title: fmt.Sprintf("%s: %s", server, m.name), Command: string(line), Started: began, Took: time.Since(began).Seconds(),
		Machine: machine(ctx), Results: []measure.Result{result}, Verdicts: verdicts,
	}
	printResult(os.Stdout, result, verdicts)
	if err := r.Write(m.JSON, m.HTML); err != nil {
		return err
	}
	if missed {
		return errMissed
	}
	return nil
}

// doRuns does n runs, each on a new server unless --target names one.
func (m *measurement) doRuns(ctx context.Context, pr *progress, n int, o scenario.Options) (runs []*measure.Run, server string, err error) {
	b := &target.Builder{}
	defer b.Close()
	for i := range n {
		pr.of("%s, run %d of %d", m.name, i+1, n)
		run, name, err := m.one(ctx, pr, b, o)
		if err != nil {
			return nil, "", fmt.Errorf("%s, run %d: %w", m.name, i+1, err)
		}
		runs, server = append(runs, run), name
	}
	return runs, server, nil
}

func (m *measurement) one(ctx context.Context, pr *progress, b *target.Builder, o scenario.Options) (*measure.Run, string, error) {
	pr.phase("starting the server", 0)
	s, err := m.server(ctx, b)
	if err != nil {
		return nil, "", err
	}
	defer s.Close()
	st, err := scenario.NewEnv(s, o.Loops, pr.phase)
	if err != nil {
		return nil, "", err
	}
	defer st.Close()
	if m.Confine {
		release, err := st.Confine()
		if err != nil {
			return nil, "", err
		}
		defer release()
	}
	o, note := o.Fit()
	run, err := m.run(ctx, st, o)
	if err == nil && note != "" {
		run.Note("%s", note)
	}
	return run, s.Name, err
}

func (m *measurement) server(ctx context.Context, b *target.Builder) (*target.Server, error) {
	if m.URL != "" {
		s, err := target.Connect(m.Existing)
		if err != nil {
			err = fmt.Errorf("%w: %w", errUsage, err)
		}
		return s, err
	}
	if m.Program != "" {
		b.Use(m.Program)
	}
	s, err := start(ctx, b, target.Kind(m.Start), m.gateway)
	if err == nil && m.twoGateways {
		if err = s.AddNode(ctx, b, m.gateway...); err != nil {
			s.Close()
		}
	}
	return s, err
}

// start starts a Redis and a server of any kind; gateway holds further flags of a gateway.
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

// shown returns the load settings for the report.
func (f loadFlags) shown() map[string]string {
	shown := map[string]string{
		"users": fmt.Sprint(f.Users), "connections": fmt.Sprint(f.Connections), "publishers": fmt.Sprint(f.Publishers),
		"message": fmt.Sprintf("%d bytes", f.Message), "warm-up": f.WarmUp.String(), "duration": f.Duration.String(), "runs": fmt.Sprint(f.Runs),
	}
	if f.Rate > 0 {
		shown["rate"] = measure.PerSecond.Format(f.Rate)
	}
	if f.Confine {
		shown["CPUs"] = "1, kept awake"
	}
	return shown
}

// printResult writes the medians, and each run's values if there are several.
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

// awaitCommand prints holding, then waits for a line on standard input.
func awaitCommand(context.Context) error {
	fmt.Println(holding)
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// holding is printed by a child process once its sockets are open and used.
const holding = "holding"
