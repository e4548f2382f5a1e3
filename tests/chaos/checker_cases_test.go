package chaos

import (
	"slices"
	"testing"
	"time"
)

func TestCheck(t *testing.T) {
	lossy := promise{Loses: true}
	for _, c := range []struct {
		name    string
		promise promise
		tell    func() *story
		want    []rule // sorted; each rule once
	}{
		{"all is well", promise{Open: true}, func() *story {
			s := toldTwice()
			s.endsWell()
			return s
		}, nil},
		{"a device resumes and gets the rest", promise{Open: true}, func() *story {
			s := newStory()
			s.opens("ann1", unset, 0)
			s.sends("a", "ka", ann, 200, 10)
			s.hears("ann1", 10, 0, "a")
			s.closes("ann1", true)
			s.sends("b", "kb", ann, 200, 20)
			s.opens("ann1", 10, 20)
			s.hears("ann1", 20, 10, "b")
			s.endsWell()
			return s
		}, nil},
		{"a repeated attempt is answered alike", promise{}, func() *story {
			s := newStory()
			s.opens("ann1", 0, 0)
			s.begins("a", "ka", 1, ann)
			s.answers("a", 1, 503)
			s.begins("a", "ka", 2, ann)
			s.answers("a", 2, 0)
			s.begins("a", "ka", 3, ann)
			s.answers("a", 3, 200, 10)
			s.hears("ann1", 10, 0, "a")
			s.settles()
			s.holds("ann", 10, 0, 1, "a")
			return s
		}, nil},
		{"a late device begins where it begins", promise{}, func() *story {
			s := toldTwice()
			s.opens("ann3", unset, 20)
			s.endsWell()
			return s
		}, nil},
		{"an acknowledged one reaches one device only", promise{}, func() *story {
			s := toldTwice()
			s.sends("c", "kc", ann, 200, 30)
			s.hears("ann1", 30, 20, "c")
			s.endsWell()
			s.holds("ann", 30, 20, 3, "c")
			return s
		}, []rule{ruleLate, ruleLost}},
		{"it comes, but only after a resume", promise{}, func() *story {
			s := toldTwice()
			s.sends("c", "kc", ann, 200, 30)
			s.hears("ann1", 30, 20, "c")
			s.mark(settled)
			s.closes("ann2", true)
			s.opens("ann2", 20, 30)
			s.hears("ann2", 30, 20, "c")
			s.mark(resumed)
			s.holds("ann", 10, 0, 1, "a")
			s.holds("ann", 20, 10, 2, "b")
			s.holds("ann", 30, 20, 3, "c")
			return s
		}, []rule{ruleLate}},
		{"it is delivered, but not in the log", promise{}, func() *story {
			s := toldTwice()
			s.settles()
			s.holds("ann", 20, 10, 2, "b")
			return s
		}, []rule{ruleLost}},
		{"the log holds what nobody has published", promise{}, func() *story {
			s := toldTwice()
			s.endsWell()
			s.holds("ann", 30, 20, 3, "c")
			return s
		}, []rule{ruleBytes}},
		{"an unacknowledged one reaches one device only", promise{}, func() *story {
			s := toldTwice()
			s.sends("c", "kc", ann, 503)
			s.hears("ann1", 30, 20, "c")
			s.endsWell()
			return s
		}, []rule{ruleLate, ruleSplit}},
		{"an unacknowledged one reaches everybody", promise{}, func() *story {
			s := toldTwice()
			s.sends("c", "kc", ann, 503)
			s.hears("ann1", 30, 20, "c")
			s.hears("ann2", 30, 20, "c")
			s.endsWell()
			s.holds("ann", 30, 20, 3, "c")
			return s
		}, nil},
		{"one of two recipients", promise{}, func() *story {
			s := toldTwice()
			s.opens("bob1", 0, 0)
			s.sends("c", "kc", []string{"ann", "bob"}, 503)
			s.hears("ann1", 30, 20, "c")
			s.hears("ann2", 30, 20, "c")
			s.endsWell()
			s.holds("ann", 30, 20, 3, "c")
			return s
		}, []rule{ruleSplit}},
		{"refused without a key, and delivered", promise{}, func() *story {
			s := toldTwice()
			s.sends("c", "", ann, 503)
			s.hears("ann1", 30, 20, "c")
			s.hears("ann2", 30, 20, "c")
			s.endsWell()
			s.holds("ann", 30, 20, 3, "c")
			return s
		}, []rule{ruleGhost}},
		{"the same where answers may be lost", promise{Ghosts: 1}, func() *story {
			s := toldTwice()
			s.sends("c", "", ann, 503)
			s.hears("ann1", 30, 20, "c")
			s.hears("ann2", 30, 20, "c")
			s.endsWell()
			s.holds("ann", 30, 20, 3, "c")
			return s
		}, nil},
		{"a device gets it again after a resume", promise{}, func() *story {
			s := toldTwice()
			s.closes("ann1", true)
			s.opens("ann1", 10, 20)
			s.hears("ann1", 20, 10, "b")
			s.endsWell()
			return s
		}, []rule{ruleTwice}},
		{"it gets it twice in a row", promise{}, func() *story {
			s := toldTwice()
			s.hears("ann1", 20, 10, "b")
			s.endsWell()
			return s
		}, []rule{ruleChain, ruleOrder, ruleTwice}},
		{"one publish, two ids", promise{}, func() *story {
			s := toldTwice()
			s.hears("ann1", 30, 20, "b")
			s.hears("ann2", 30, 20, "b")
			s.endsWell()
			s.holds("ann", 30, 20, 3, "b")
			return s
		}, []rule{ruleTwice}},
		{"two attempts, two answers", promise{}, func() *story {
			s := toldTwice()
			s.begins("b", "kb", 2, ann)
			s.answers("b", 2, 200, 30)
			s.endsWell()
			return s
		}, []rule{ruleTwice}},
		{"one id, two publishes", promise{}, func() *story {
			s := toldTwice()
			s.sends("c", "kc", ann, 200, 20)
			s.endsWell()
			return s
		}, []rule{ruleIdentity}},
		{"one id, two times", promise{}, func() *story {
			s := toldTwice()
			s.endsWell()
			s.events[len(s.events)-1].TS = 21
			return s
		}, []rule{ruleIdentity}},
		{"ids against the order of publishing", promise{}, func() *story {
			s := newStory()
			s.opens("ann1", 0, 0)
			s.sends("a", "ka", ann, 200, 20)
			s.sends("b", "kb", ann, 200, 10)
			s.hears("ann1", 10, 0, "b")
			s.hears("ann1", 20, 10, "a")
			s.settles()
			s.holds("ann", 10, 0, 1, "b")
			s.holds("ann", 20, 10, 2, "a")
			return s
		}, []rule{ruleOrder}},
		{"a hole that nobody mentions", lossy, func() *story {
			s := toldTwice()
			s.sends("c", "kc", ann, 200, 30)
			s.sends("d", "kd", ann, 200, 40)
			for _, d := range []string{"ann1", "ann2"} {
				s.hears(d, 40, 30, "d")
			}
			s.settles()
			s.holds("ann", 40, 30, 4, "d")
			return s
		}, []rule{ruleChain, ruleLate, ruleLost}},
		{"a hole that a gap mentions", lossy, func() *story {
			s := toldTwice()
			s.sends("c", "kc", ann, 200, 30)
			s.sends("d", "kd", ann, 200, 40)
			for _, d := range []string{"ann1", "ann2"} {
				s.told(d, 20, 40)
				s.hears(d, 40, 30, "d")
			}
			s.settles()
			s.holds("ann", 40, 30, 4, "d")
			return s
		}, nil},
		{"the same where nothing may be lost", promise{}, func() *story {
			s := toldTwice()
			s.sends("c", "kc", ann, 200, 30)
			s.sends("d", "kd", ann, 200, 40)
			for _, d := range []string{"ann1", "ann2"} {
				s.told(d, 20, 40)
				s.hears(d, 40, 30, "d")
			}
			s.endsWell()
			s.holds("ann", 30, 20, 3, "c")
			s.holds("ann", 40, 30, 4, "d")
			return s
		}, []rule{ruleGap}},
		{"a gap where nothing is missing", lossy, func() *story {
			s := toldTwice()
			s.sends("c", "kc", ann, 200, 30)
			s.told("ann1", 20, 30)
			s.hears("ann1", 30, 20, "c")
			s.hears("ann2", 30, 20, "c")
			s.endsWell()
			s.holds("ann", 30, 20, 3, "c")
			return s
		}, []rule{ruleGap}},
		{"a gap at the end where nothing is missing", lossy, func() *story {
			s := toldTwice()
			s.told("ann1", 20, 0)
			s.endsWell()
			return s
		}, []rule{ruleGap}},
		{"a gap that announces another id", lossy, func() *story {
			s := toldTwice()
			s.sends("d", "kd", ann, 200, 40)
			for _, d := range []string{"ann1", "ann2"} {
				s.told(d, 20, 35)
				s.hears(d, 40, 30, "d")
			}
			s.settles()
			return s
		}, []rule{ruleGap}},
		{"a gap from where the stream is not", lossy, func() *story {
			s := toldTwice()
			s.sends("d", "kd", ann, 200, 40)
			for _, d := range []string{"ann1", "ann2"} {
				s.told(d, 15, 40)
				s.hears(d, 40, 30, "d")
			}
			s.settles()
			return s
		}, []rule{ruleGap}},
		{"the log forgets, and says so", lossy, func() *story {
			s := toldTwice()
			for _, d := range []string{"ann1", "ann2"} {
				s.closes(d, false)
				s.opens(d, 20, 0)
				s.told(d, 20, 0)
			}
			s.sends("c", "kc", ann, 200, 30)
			for _, d := range []string{"ann1", "ann2"} {
				s.hears(d, 30, 0, "c")
			}
			s.settles()
			s.holds("ann", 30, 0, 1, "c")
			return s
		}, nil},
		{"the log forgets in silence", lossy, func() *story {
			s := toldTwice()
			s.closes("ann1", false)
			s.opens("ann1", 20, 0)
			s.settles()
			s.pass(2 * heardOut)
			s.mark(resumed)
			return s
		}, []rule{ruleSilence}},
		{"the log forgets what it must not", promise{}, func() *story {
			s := toldTwice()
			s.closes("ann1", true)
			s.opens("ann1", 20, 10)
			s.settles()
			s.holds("ann", 10, 0, 1, "a")
			return s
		}, []rule{ruleHello, ruleLost}},
		{"another's notification", promise{}, func() *story {
			s := toldTwice()
			s.opens("bob1", 0, 0)
			s.hears("bob1", 20, 0, "b")
			s.endsWell()
			return s
		}, []rule{ruleStranger}},
		{"a message that changed", promise{}, func() *story {
			s := toldTwice()
			s.hears("ann1", 30, 20, "B")
			s.endsWell()
			return s
		}, []rule{ruleBytes}},
		{"no hello", promise{}, func() *story {
			s := newStory()
			s.asks("ann1", 0)
			s.sends("a", "ka", ann, 200, 10)
			s.hears("ann1", 10, 0, "a")
			s.settles()
			s.holds("ann", 10, 0, 1, "a")
			return s
		}, []rule{ruleHello}},
		{"another's hello", promise{}, func() *story {
			s := toldTwice()
			s.events[1].User = "bob"
			s.endsWell()
			return s
		}, []rule{ruleHello}},
		{"turned away", promise{Open: true}, func() *story {
			s := toldTwice()
			s.closes("ann1", true)
			s.asks("ann1", 20)
			s.gets("ann1", event{Frame: "bye", Code: 4101})
			s.closes("ann1", false)
			s.opens("ann1", 20, 20)
			s.endsWell()
			return s
		}, nil},
		{"an old hello", promise{}, func() *story {
			s := toldTwice()
			s.closes("ann1", true)
			s.opens("ann1", 20, 20)
			s.opens("ann3", unset, 10)
			s.hears("ann3", 20, 10, "b")
			s.endsWell()
			return s
		}, []rule{ruleHello}},
		{"an answer that is none", promise{}, func() *story {
			s := toldTwice()
			s.sends("c", "kc", ann, 500)
			s.endsWell()
			return s
		}, []rule{ruleAnswer}},
		{"an answer without ids", promise{}, func() *story {
			s := newStory()
			s.opens("ann1", 0, 0)
			s.sends("a", "ka", ann, 200)
			s.settles()
			return s
		}, []rule{ruleAnswer, ruleLost}},
		{"a stream ends that should not", promise{Open: true}, func() *story {
			s := toldTwice()
			s.closes("ann1", false)
			s.opens("ann1", 20, 20)
			s.endsWell()
			return s
		}, []rule{ruleClosed}},
		{"a gap is not what comes after it", lossy, func() *story {
			s := toldTwice()
			s.sends("d", "kd", ann, 200, 40)
			s.told("ann1", 20, 40)
			s.told("ann2", 20, 40)
			s.hears("ann2", 40, 30, "d")
			s.settles()
			return s
		}, []rule{ruleLate, ruleLost}},
		{"a device comes back late", promise{}, func() *story {
			s := toldTwice()
			s.closes("ann1", true)
			s.mark(settled)
			s.opens("ann1", 20, 20)
			s.mark(resumed)
			s.holds("ann", 10, 0, 1, "a")
			s.holds("ann", 20, 10, 2, "b")
			return s
		}, []rule{ruleLate}},
		{"a device does not resume", promise{}, func() *story {
			s := toldTwice()
			s.mark(settled)
			s.closes("ann1", true)
			s.mark(resumed)
			s.holds("ann", 10, 0, 1, "a")
			s.holds("ann", 20, 10, 2, "b")
			return s
		}, []rule{ruleLate}},
		{"a device does not come back", promise{}, func() *story {
			s := toldTwice()
			s.closes("ann1", true)
			s.endsWell()
			return s
		}, []rule{ruleLate}},
		{"a device never comes", promise{}, func() *story {
			s := toldTwice()
			s.asks("ann3", 0)
			s.endsWell()
			return s
		}, []rule{ruleLate}},
		{"an end that never comes", promise{}, toldTwice, []rule{ruleLate}},
		{"a log with a hole", promise{}, func() *story {
			s := toldTwice()
			s.settles()
			s.holds("ann", 10, 0, 1, "a")
			s.holds("ann", 20, 11, 3, "b")
			return s
		}, []rule{ruleChain}},
	} {
		t.Run(c.name, func(t *testing.T) {
			broken := check(c.tell().events, c.promise)
			if got := rulesOf(broken); !slices.Equal(got, c.want) {
				t.Errorf("broken: %v, want %v\n%s", got, c.want, digest(broken))
			}
		})
	}
}

// faulty returns a story in which a fault on node 0 lasts a minute.
func faulty(during func(*story)) []event {
	s := newStory()
	s.add(event{Kind: readinessMoved, Node: 0, Status: 200})
	s.add(event{Kind: faultBegan, Fault: 1, Nodes: []int{0}, Name: "away", Answer: silentAnswer, Red: silentRed})
	during(s)
	s.pass(time.Minute)
	s.add(event{Kind: faultEnded, Fault: 1, Nodes: []int{0}})
	s.mark(settled)
	return s.events
}

func TestCheckFaults(t *testing.T) {
	turns := func(s *story, status int) { s.add(event{Kind: readinessMoved, Node: 0, Status: status}) }
	for name, c := range map[string]struct {
		during func(*story)
		want   []rule
	}{
		"red and green": {func(s *story) { s.pass(3 * time.Second); turns(s, 503); turns(s, 200) }, nil},
		"red too late":  {func(s *story) { s.pass(30 * time.Second); turns(s, 503); turns(s, 200) }, []rule{ruleReadiness}},
		"never red":     {func(*story) {}, []rule{ruleReadiness}},
		"never green":   {func(s *story) { turns(s, 503) }, []rule{ruleReadiness}},
		"a soon 503": {func(s *story) {
			turns(s, 503)
			s.sends("a", "ka", ann, 503)
			turns(s, 200)
		}, nil},
		"a late 503": {func(s *story) {
			turns(s, 503)
			s.begins("a", "ka", 1, ann)
			s.pass(10 * time.Second)
			s.answers("a", 1, 503)
			turns(s, 200)
		}, []rule{ruleAnswer}},
		"no answer": {func(s *story) {
			turns(s, 503)
			s.begins("a", "ka", 1, ann)
			s.pass(10 * time.Second)
			s.answers("a", 1, 0)
			turns(s, 200)
		}, []rule{ruleAnswer}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLedger(faulty(c.during), promise{})
			l.checkFaults()
			if got := rulesOf(l.broken); !slices.Equal(got, c.want) {
				t.Errorf("broken: %v, want %v\n%s", got, c.want, digest(l.broken))
			}
		})
	}
}
