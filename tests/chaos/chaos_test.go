package chaos

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"

	"herald/internal/testing/gatewaytest"
	"herald/internal/testing/redistest"
)

// TestNothingAcknowledgedIsLost runs every scenario and prints a table of results (with
// -v). The short run has two scenarios in parallel. The long run has one at a time, so
// that its times are comparable.
func TestNothingAcknowledgedIsLost(t *testing.T) {
	redistest.Require(t, "redis-server")
	program := gatewaytest.Build(t)
	z := shortSize
	if *long {
		z = longSize
	}
	var mu sync.Mutex
	rows := make(map[string]row) // guarded by mu
	t.Run("scenarios", func(t *testing.T) {
		for _, s := range scenarios {
			t.Run(s.name, func(t *testing.T) {
				if !*long {
					t.Parallel()
				}
				rec := perform(t, s, program, z)
				r := judge(t, rec)
				if s.struck != nil && !s.struck(r) {
					t.Errorf("seed %d: this was not the disaster it should have been", seed)
				}
				mu.Lock()
				defer mu.Unlock()
				rows[s.name] = r
			})
		}
	})
	var list table
	for _, s := range scenarios {
		if r, ok := rows[s.name]; ok {
			list = append(list, r)
		}
	}
	list.write(t.Output())
	fmt.Fprintf(t.Output(), "seed %d\n%s\n", seed, legend)
}

// judge fails the test for each broken promise, keeps the history in that case, and
// returns the result.
func judge(t *testing.T, rec recording) row {
	t.Helper()
	l := newLedger(rec.events, rec.Promise)
	if broken := l.check(); len(broken) > 0 {
		t.Errorf("seed %d: %d violations\n%shistory: %s", seed, len(broken), digest(broken), rec.keep(t))
	} else if *keepFlag {
		t.Logf("history: %s", rec.keep(t))
	}
	return l.measure(rec.Scenario)
}

// mostShown is how many violations of each rule are shown.
const mostShown = 5

// digest is the first violations of each rule.
func digest(broken []violation) (text string) {
	shown := map[rule]int{}
	for _, v := range broken {
		if shown[v.Rule]++; shown[v.Rule] <= mostShown {
			text += "\t" + v.String() + "\n"
		}
	}
	for r, n := range shown {
		if n > mostShown {
			text += fmt.Sprintf("\t… and %d more of %q\n", n-mostShown, r)
		}
	}
	return text
}

// TestRecordedHistory checks the history of a failed run again.
func TestRecordedHistory(t *testing.T) {
	if *historyFlag == "" {
		return // runs only by hand, with -chaos.history
	}
	f, err := os.Open(*historyFlag)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rec, err := readRecording(f)
	if err != nil {
		t.Fatal(err)
	}
	l := newLedger(rec.events, rec.Promise)
	for _, v := range l.check() {
		t.Error(v)
	}
	table{l.measure(rec.Scenario)}.write(t.Output())
}

// rulesOf are the rules that were broken, once each.
func rulesOf(broken []violation) (list []rule) {
	for _, v := range broken {
		list = append(list, v.Rule)
	}
	slices.Sort(list)
	return slices.Compact(list)
}
