package chaos

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"
)

// A history that is read back from its file gives the same result.
func TestRecordingIsReadAsItWasWritten(t *testing.T) {
	s := toldTwice()
	s.told("ann1", 20, 0)
	s.add(event{Kind: faultBegan, Fault: 1, Nodes: []int{0, 2}, Name: "away", Answer: time.Second, Red: time.Minute})
	s.sends("c", "", []string{"ann", "bob"}, 200, 30, 30)
	s.closes("ann1", true)
	s.endsWell()
	want := recording{Scenario: "x", Seed: 7, Promise: promise{Loses: true, Ghosts: anyNumber}, events: s.events}
	var file bytes.Buffer
	if err := want.write(&file); err != nil {
		t.Fatal(err)
	}
	got, err := readRecording(&file)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestMeasure(t *testing.T) {
	s := toldTwice()
	s.add(event{Kind: readinessMoved, Status: 200})
	s.add(event{Kind: faultBegan, Fault: 1, Nodes: []int{0}, Name: "away", Answer: time.Second})
	s.pass(2 * time.Second)
	s.add(event{Kind: readinessMoved, Status: 503})
	s.begins("c", "", 1, ann)
	s.pass(300 * time.Millisecond)
	s.answers("c", 1, 503)
	s.closes("ann1", false)
	s.add(event{Kind: faultEnded, Fault: 1})
	s.pass(100 * time.Millisecond)
	s.hears("ann2", 30, 20, "c") // it was waiting
	s.add(event{Kind: readinessMoved, Status: 200})
	s.opens("ann1", 20, 30)
	s.told("ann1", 20, 0)
	s.sends("d", "kd", ann, 200, 40)
	s.hears("ann1", 40, 30, "d") // it was not
	l := newLedger(s.events, promise{Ghosts: anyNumber})
	l.check()
	got := l.measure("x")
	want := row{
		name: "x", published: 4, acked: 3, ghosts: 1, gaps: 1, closed: 1, lost: 1, // d, to ann2
		recovery: []time.Duration{time.Millisecond, 101 * time.Millisecond},
		refusal:  []time.Duration{301 * time.Millisecond},
		red:      2001 * time.Millisecond, green: 102 * time.Millisecond,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestPercentile(t *testing.T) {
	times := make([]time.Duration, 200)
	for i := range times {
		times[i] = time.Duration(i+1) * time.Millisecond
	}
	for p, want := range map[int]string{0: "1ms", 50: "100ms", 99: "198ms", 100: "200ms"} {
		if got := percentile(times, p); got != want {
			t.Errorf("p%d: %s, want %s", p, got, want)
		}
	}
	if got := percentile(nil, 50); got != "–" {
		t.Errorf("of nothing: %s", got)
	}
}

func TestTableHasAColumnForEachNumber(t *testing.T) {
	var b strings.Builder
	table{{name: "first"}, {name: "second", acked: 7}}.write(&b)
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 3 || !strings.Contains(lines[2], "second") || len([]rune(lines[1])) != len([]rune(lines[2])) {
		t.Errorf("got\n%s", b.String())
	}
}

func TestWhereADeviceResumes(t *testing.T) {
	hello := frame{Type: "hello", Last: 50, resume: 50}
	for _, c := range []struct {
		name    string
		since   int64
		frames  []frame
		webSock int64
		events  int64
	}{
		{"new", unset, []frame{hello}, 50, 50},
		{"back", 40, []frame{{Type: "hello", Last: 50, resume: 40}}, 40, 40},
		{"a notification", 40, []frame{{Type: "notification", ID: 45, resume: 45}}, 45, 45},
		{"an ephemeral one", 40, []frame{{Type: "notification", resume: unset}}, 40, 40},
		{"a gap", 40, []frame{{Type: "gap", After: 40, Next: 48, resume: unset}}, 47, 40},
		{"a gap without an end", 60, []frame{{Type: "hello", Last: 50, resume: 60}, {Type: "gap", After: 60, resume: 50}}, 50, 50},
	} {
		for sse, want := range map[bool]int64{false: c.webSock, true: c.events} {
			d := &device{h: newHistory(), sse: sse}
			d.at.last = c.since
			for _, f := range c.frames {
				d.take(f, 1)
			}
			if d.at.last != want {
				t.Errorf("%s (events: %t): resumes from %d, want %d", c.name, sse, d.at.last, want)
			}
		}
	}
}
