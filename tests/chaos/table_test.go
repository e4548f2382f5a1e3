package chaos

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// row is the result of one scenario.
type row struct {
	name      string
	published int
	acked     int
	ghosts    int // refused and stored all the same
	lost      int // acknowledged and missing, summed over devices
	twice     int
	gaps      int             // gap frames
	recovery  []time.Duration // from a fault's end to each socket's first delivery
	closed    int             // streams that their device did not close
	refusal   []time.Duration // times until publishes were refused, where a bound is promised
	red       time.Duration   // the longest time until a node was not ready; 0: all stayed ready
	green     time.Duration   // the longest time until it was ready again
}

// measure computes the row of a checked ledger.
func (l *ledger) measure(name string) row {
	r := row{name: name, published: len(l.publishes), ghosts: len(l.ghosts())}
	for _, o := range l.publishes {
		if o.acked != 0 {
			r.acked++
		}
	}
	for _, v := range l.broken {
		switch v.Rule {
		case ruleLost:
			r.lost++
		case ruleTwice:
			r.twice++
		}
	}
	for _, s := range l.streams {
		if s.taken() && s.ended != 0 && !s.own {
			r.closed++
		}
		r.gaps += len(s.gaps())
	}
	for _, f := range sorted(l.faults) {
		r.recovery = append(r.recovery, l.recoveries(f)...)
		if f.Answer > 0 {
			r.refusal = append(r.refusal, l.refusals(f)...)
		}
		for _, node := range f.Nodes {
			if after, ok := l.redAfter(f, node); ok {
				r.red = max(r.red, after)
			}
			if after, ok := l.greenAfter(f, node); ok {
				r.green = max(r.green, after)
			}
		}
	}
	slices.Sort(r.recovery)
	slices.Sort(r.refusal)
	return r
}

func (s *stream) gaps() []event {
	return slices.DeleteFunc(slices.Clone(s.frames), func(f event) bool { return f.Frame != "gap" })
}

// recoveries returns, for each device with a stream on an affected node, the time from the
// end of the fault to the next notification. If none was waiting, it counts from the
// acknowledgement.
func (l *ledger) recoveries(f *fault) (times []time.Duration) {
	for _, d := range l.devices {
		struck := slices.ContainsFunc(d.streams, func(s *stream) bool { return s.openAt(f.At) && slices.Contains(f.Nodes, s.node) })
		list := d.notifications()
		i := slices.IndexFunc(list, func(e event) bool { return e.At > f.until(l) })
		if !struck || i < 0 {
			continue
		}
		from := f.until(l)
		if o := d.user.orders[list[i].ID]; o != nil {
			from = max(from, o.acked)
		}
		times = append(times, max(0, list[i].At-from))
	}
	return times
}

// table prints the results of a run.
type table []row

func (t table) write(w io.Writer) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "fault\tpublished\tacked\tlost\ttwice\tgaps\tghosts\tclosed\tdelivers p50\tp99\tmax\t503 p50\tmax\tred\tgreen\t")
	for _, r := range t {
		fmt.Fprintf(tw, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n",
			r.name, r.published, r.acked, r.lost, r.twice, r.gaps, r.ghosts, r.closed,
			percentile(r.recovery, 50), percentile(r.recovery, 99), percentile(r.recovery, 100),
			percentile(r.refusal, 50), percentile(r.refusal, 100), milliseconds(r.red), milliseconds(r.green))
	}
	_ = tw.Flush()
}

// percentile returns a percentile of sorted times by the nearest rank.
func percentile(sorted []time.Duration, p int) string {
	if len(sorted) == 0 {
		return "–"
	}
	return fmt.Sprintf("%dms", sorted[max(0, (len(sorted)*p+99)/100-1)].Milliseconds())
}

// milliseconds formats a time; – if it did not happen.
func milliseconds(d time.Duration) string {
	if d == 0 {
		return "–"
	}
	return fmt.Sprintf("%dms", d.Milliseconds())
}

const legend = `lost, twice: per device, must be 0. ghosts: answered 503, without a key to repeat it with, and yet stored.
closed: streams that the device did not end. delivers: from a fault's end, or from the acknowledgement if that
is later, to the next notification on each socket that was struck; of faults in quick succession each counts.
503: until a publish is refused while Redis is away. red, green: the longest until /health/ready noticed that a
fault had begun, and that it was over.`
