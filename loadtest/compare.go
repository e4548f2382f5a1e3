//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"herald/loadtest/measure"
	"herald/loadtest/scenario"
	"herald/loadtest/target"
)

type compareCmd struct {
	Quick  bool     `help:"One short round with fewer sockets, at most two and a half minutes: a smoke test."`
	Rounds int      `placeholder:"N" help:"Rounds through all servers (default 3; fewer if time runs out)."`
	Only   []string `placeholder:"KIND" enum:"herald,baseline,baseline-unlimited,socketio,nchan" help:"Measure only these servers, and always herald."`
	outputFlags
}

// plan sets the load and the durations of a comparison.
type plan struct {
	limit  time.Duration // for the whole comparison
	rounds int
	suite  scenario.SuiteOptions
	raw    time.Duration
	idle   idlePlan
}

type idlePlan struct {
	connections int
	hold        time.Duration
}

func (c compareCmd) plan() plan {
	p := plan{
		limit: 14 * time.Minute, rounds: 3, raw: 2 * time.Second, idle: idlePlan{15000, time.Minute},
		suite: scenario.SuiteOptions{
			Options: scenario.Options{
				Users: 5000, Connections: 5000, Publishers: 32, Message: 200, WarmUp: time.Second, Concurrency: 32, Window: 4096,
			},
			FixedRate: 1000, FirstWarmUp: 4 * time.Second, Publish: 4 * time.Second, FixedRateTime: 5 * time.Second, Redis: 3 * time.Second, Fanout: 2500 * time.Millisecond,
		},
	}
	if c.Quick {
		p.limit, p.rounds, p.raw, p.idle = 150*time.Second, 1, time.Second, idlePlan{3000, 10 * time.Second}
		s := &p.suite
		s.Users, s.Connections, s.WarmUp = 2000, 2000, 500*time.Millisecond
		s.FirstWarmUp, s.Publish, s.FixedRateTime, s.Redis, s.Fanout = 2*time.Second, 1500*time.Millisecond, 1500*time.Millisecond, time.Second, time.Second
	}
	if c.Rounds > 0 {
		p.rounds = c.Rounds
	}
	return p
}

// Run is called by kong.
func (c compareCmd) Run(ctx context.Context, line commandLine) error {
	p := c.plan()
	began := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, p.limit, errTimeIsUp)
	defer cancel()
	pr := newProgress(os.Stderr, c.Quiet)
	cmp, err := newComparison(ctx, p, pr, c.kinds())
	if err == nil {
		defer cmp.close()
		err = cmp.all(ctx, began)
	}
	pr.close()
	if err != nil {
		return err
	}
	r := cmp.report()
	r.Command, r.Started, r.Took = string(line), began, time.Since(began).Seconds()
	r.Machine = machine(context.WithoutCancel(ctx))
	printTable(os.Stdout, r)
	return r.Write(c.JSON, c.HTML)
}

var errTimeIsUp = errors.New("the time limit was reached")

func (c compareCmd) kinds() []target.Kind {
	if len(c.Only) == 0 {
		return target.Kinds
	}
	return slices.DeleteFunc(slices.Clone(target.Kinds), func(k target.Kind) bool {
		return k != target.Herald && !slices.Contains(c.Only, string(k))
	})
}

// comparison is a comparison in progress.
type comparison struct {
	plan    plan
	pr      *progress
	kinds   []target.Kind
	builder *target.Builder
	gateway string // path of the gateway
	program string // path of this program, for child processes
	dir     string // for the results of child processes

	runs  map[target.Kind]map[string][]*measure.Run // by part
	raw   []*measure.Run
	notes []string
}

func newComparison(ctx context.Context, p plan, pr *progress, kinds []target.Kind) (*comparison, error) {
	c := &comparison{plan: p, pr: pr, kinds: kinds, builder: &target.Builder{}, runs: map[target.Kind]map[string][]*measure.Run{}}
	for _, k := range kinds {
		c.runs[k] = map[string][]*measure.Run{}
	}
	var err error
	if c.program, err = os.Executable(); err != nil {
		return nil, err
	}
	pr.of("compare")
	pr.phase("building the gateway", 20*time.Second)
	if c.gateway, err = c.builder.Build(ctx); err != nil {
		return nil, err
	}
	c.dir, err = os.MkdirTemp("", "loadtest")
	return c, err
}

func (c *comparison) close() {
	c.builder.Close()
	_ = os.RemoveAll(c.dir)
}

// all measures the idle connections, then as many rounds as the time limit allows.
func (c *comparison) all(ctx context.Context, began time.Time) error {
	if err := c.idle(ctx); err != nil {
		return err
	}
	longest := time.Duration(0) // one server in one round
	for round := range c.plan.rounds {
		for i := range c.kinds {
			// Each round starts with another server.
			kind := c.kinds[(i+round)%len(c.kinds)]
			if round > 0 && time.Since(began)+longest > c.plan.limit-5*time.Second {
				c.note("Time ran out in round %d of %d: some medians are of fewer runs.", round+1, c.plan.rounds)
				return nil
			}
			turn := time.Now()
			c.pr.of("round %d of %d, %s", round+1, c.plan.rounds, kind.Title())
			if err := c.turn(ctx, kind); err != nil {
				return err
			}
			longest = max(longest, time.Since(turn))
		}
	}
	return nil
}

func (c *comparison) note(format string, args ...any) {
	if note := fmt.Sprintf(format, args...); !slices.Contains(c.notes, note) {
		c.notes = append(c.notes, note)
	}
}

// turn measures one server once. A failure of the gateway fails the comparison; a
// peer that fails becomes a note.
func (c *comparison) turn(ctx context.Context, kind target.Kind) error {
	err := c.suite(ctx, kind)
	if err == nil && kind == target.Herald {
		err = errors.Join(c.rawWrites(ctx), c.stored(ctx))
	}
	if err == nil && kind != target.BaselineUnlimited {
		err = c.confined(ctx, kind)
	}
	if err != nil && (kind == target.Herald || ctx.Err() != nil) && !errors.Is(context.Cause(ctx), errTimeIsUp) {
		return fmt.Errorf("%s: %w", kind.Title(), err)
	}
	if err != nil {
		c.note("%s: %v", kind.Title(), err)
	}
	return nil
}

func (c *comparison) suite(ctx context.Context, kind target.Kind) error {
	return c.with(ctx, kind, false, func(st *scenario.Env) error {
		o, note := c.plan.suite, ""
		if o.Options, note = o.Options.Fit(); note != "" {
			c.note("%s", note)
		}
		o.Fanouts = kind != target.BaselineUnlimited // the limiter does not affect fan-out
		return scenario.Suite(ctx, st, o, func(part string, run *measure.Run) { c.done(kind, part, run) })
	})
}

// confined measures latencies on one CPU that is kept awake, in a child process:
// garbage collection of this one would disturb the measurement.
func (c *comparison) confined(ctx context.Context, kind target.Kind) error {
	o := c.plan.suite
	c.pr.phase("publishing on one CPU", o.WarmUp+o.FixedRateTime)
	r, err := c.startRunner(kind, "publish", "--confine", fmt.Sprintf("--rate=%g", o.FixedRate), fmt.Sprintf("--users=%d", o.Users),
		fmt.Sprintf("--publishers=%d", o.Publishers), fmt.Sprintf("--message=%d", o.Message), "--warm-up="+o.WarmUp.String(), "--duration="+o.FixedRateTime.String())
	if err != nil {
		return err
	}
	defer r.child.Stop()
	run, err := r.result(ctx, o.WarmUp+o.FixedRateTime+30*time.Second)
	if err == nil {
		c.done(kind, scenario.PartConfined, run)
	}
	return err
}

// stored measures a node that only delivers what another node publishes.
func (c *comparison) stored(ctx context.Context) error {
	return c.with(ctx, target.Herald, true, func(st *scenario.Env) error {
		o := c.plan.suite.Options
		o.Duration = c.plan.suite.Redis
		run, err := scenario.Stored(ctx, st, o)
		if err == nil {
			c.done(target.Herald, scenario.PartStored, run)
		}
		return err
	})
}

// with starts a server and runs f on it; two adds a second gateway that holds the
// sockets.
func (c *comparison) with(ctx context.Context, kind target.Kind, two bool, f func(*scenario.Env) error) error {
	c.pr.phase("starting", 0)
	s, err := start(ctx, c.builder, kind, []string{anySockets})
	if err != nil {
		return err
	}
	defer s.Close()
	if two {
		if err := s.AddNode(ctx, c.builder, anySockets); err != nil {
			return err
		}
	}
	st, err := scenario.NewEnv(s, 0, c.pr.phase)
	if err != nil {
		return err
	}
	defer st.Close()
	return f(st)
}

func (c *comparison) done(kind target.Kind, part string, run *measure.Run) {
	c.runs[kind][part] = append(c.runs[kind][part], run)
}

// rawWrites measures raw writes right after the gateway, because the cost of a
// write varies with the load of the machine.
func (c *comparison) rawWrites(ctx context.Context) error {
	o := c.plan.suite.Options
	o.Duration = c.plan.raw
	raw, err := target.StartRaw(ctx, c.program, "raw-write", fmt.Sprint(o.Connections))
	if err != nil {
		return err
	}
	defer raw.Close()
	run, err := scenario.RawWrites(ctx, raw, c.pr.phase, o)
	if err != nil {
		return err
	}
	c.raw = append(c.raw, run)
	return nil
}
