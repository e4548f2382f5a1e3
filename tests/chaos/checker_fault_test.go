package chaos

import (
	"net/http"
	"slices"
	"time"
)

// Promises about time are measured exactly and checked generously: a violation means a
// defect, not a slow machine.
const (
	answerFactor = 5
	answerFloor  = time.Second
	redFactor    = 3
)

// checkFaults: while Redis is away, publishes are refused soon and /health/ready turns
// red; in the end it is green again.
func (l *ledger) checkFaults() {
	for _, f := range sorted(l.faults) {
		if f.Answer > 0 {
			limit := max(answerFactor*f.Answer, answerFloor)
			for _, took := range l.refusals(f) {
				if took > limit {
					l.violate(ruleAnswer, f.At, "%s: a publish took %v to be refused, %v is promised", f.Name, took, f.Answer)
				}
			}
		}
		if f.Red > 0 && f.until(l)-f.At >= redFactor*f.Red {
			l.checkRed(f)
		}
	}
	if l.settled == 0 {
		return
	}
	for node, status := range l.readinessAt(l.settled) {
		if status != http.StatusOK {
			l.violate(ruleReadiness, l.settled, "node %d is not ready although nothing is in its way: %d", node, status)
		}
	}
}

func (l *ledger) checkRed(f *fault) {
	for _, node := range f.Nodes {
		if after, ok := l.redAfter(f, node); !ok || after > redFactor*f.Red {
			l.violate(ruleReadiness, f.At, "%s: node %d was still ready after %v", f.Name, node, redFactor*f.Red)
		}
	}
}

// until returns when the fault ended.
func (f *fault) until(l *ledger) time.Duration {
	if f.ended == 0 {
		return l.end
	}
	return f.ended
}

// refusals returns how long the affected nodes took to refuse a publish, or the publisher
// to time out. It counts publishes that began and ended within the fault.
func (l *ledger) refusals(f *fault) (took []time.Duration) {
	for _, o := range sorted(l.publishes) {
		for _, a := range o.attempts {
			if a.began > f.At && a.ended != 0 && a.ended < f.until(l) && a.status != 200 && slices.Contains(f.Nodes, a.node) {
				took = append(took, a.ended-a.began)
			}
		}
	}
	return took
}

// readinessAt returns each node's last answer at that time.
func (l *ledger) readinessAt(at time.Duration) map[int]int {
	last := map[int]int{}
	for _, e := range l.readiness {
		if e.At <= at {
			last[e.Node] = e.Status
		}
	}
	return last
}

// redAfter returns the time from the start of the fault until the node was not ready; ok
// is false if it stayed ready until the end.
func (l *ledger) redAfter(f *fault, node int) (after time.Duration, ok bool) {
	if l.readinessAt(f.At)[node] != http.StatusOK {
		return 0, true
	}
	return l.moved(node, f.At, f.until(l), func(status int) bool { return status != http.StatusOK })
}

// greenAfter returns the time from the end of the fault until the node was ready again; ok
// is false if it always was, or never became so.
func (l *ledger) greenAfter(f *fault, node int) (after time.Duration, ok bool) {
	if l.readinessAt(f.until(l))[node] == http.StatusOK {
		return 0, false
	}
	return l.moved(node, f.until(l), l.end, func(status int) bool { return status == http.StatusOK })
}

func (l *ledger) moved(node int, from, to time.Duration, want func(int) bool) (after time.Duration, ok bool) {
	for _, e := range l.readiness {
		if e.Node == node && e.At >= from && e.At <= to && want(e.Status) {
			return e.At - from, true
		}
	}
	return 0, false
}
