package chaos

import "time"

// story builds a history by hand. Each call takes a millisecond.
type story struct {
	now     time.Duration
	events  []event
	streams map[string]int // the latest stream of each device
}

func newStory() *story { return &story{streams: map[string]int{}} }

func (s *story) add(e event) {
	s.pass(time.Millisecond)
	e.At = s.now
	s.events = append(s.events, e)
}

// pass advances the time.
func (s *story) pass(d time.Duration) { s.now += d }

// sends records the first attempt of a publish and its answer. The message is its name.
func (s *story) sends(name, key string, users []string, status int, ids ...int64) {
	s.begins(name, key, 1, users)
	s.answers(name, 1, status, ids...)
}

func (s *story) begins(name, key string, attempt int, users []string) {
	s.add(event{Kind: publishSent, Publish: name, Attempt: attempt, Key: key, Users: users, Message: `"` + name + `"`})
}

func (s *story) answers(name string, attempt, status int, ids ...int64) {
	s.add(event{Kind: publishAnswered, Publish: name, Attempt: attempt, Status: status, IDs: ids})
}

// opens connects a device, whose name is its owner's and a digit.
func (s *story) opens(device string, since, last int64) {
	s.asks(device, since)
	s.gets(device, event{Frame: "hello", User: owner(device), Last: last})
}

func (s *story) asks(device string, since int64) {
	no := 1
	for _, e := range s.events {
		no = max(no, e.Stream+1)
	}
	s.streams[device] = no
	s.add(event{Kind: streamAsked, Stream: no, Device: device, User: owner(device), Since: since})
}

func owner(device string) string { return device[:len(device)-1] }

func (s *story) gets(device string, f event) {
	f.Kind, f.Stream, f.Device = frameReceived, s.streams[device], device
	s.add(f)
}

// hears delivers the notification called name.
func (s *story) hears(device string, id, prev int64, name string) {
	s.gets(device, event{Frame: "notification", ID: id, Prev: prev, TS: id, Message: `"` + name + `"`})
}

func (s *story) told(device string, after, next int64) {
	s.gets(device, event{Frame: "gap", After: after, Next: next})
}

func (s *story) closes(device string, own bool) {
	s.add(event{Kind: streamClosed, Stream: s.streams[device], Device: device, Own: own})
}

func (s *story) holds(user string, id, prev, count int64, name string) {
	s.add(event{Kind: logEntry, User: user, ID: id, Prev: prev, TS: id, Count: count, Message: `"` + name + `"`})
}

func (s *story) mark(k kind) { s.add(event{Kind: k}) }

func (s *story) settles() { s.mark(settled); s.mark(resumed) }

// ann is the user of the stories; her devices are ann1 and ann2.
var ann = []string{"ann"}

// toldTwice is the common beginning: both devices are open and have 10 and 20.
func toldTwice() *story {
	s := newStory()
	s.opens("ann1", 0, 0)
	s.opens("ann2", unset, 0)
	s.sends("a", "ka", ann, 200, 10)
	s.sends("b", "kb", ann, 200, 20)
	for _, d := range []string{"ann1", "ann2"} {
		s.hears(d, 10, 0, "a")
		s.hears(d, 20, 10, "b")
	}
	return s
}

// endsWell is the common end: everything has settled and the log holds 10 and 20.
func (s *story) endsWell() {
	s.settles()
	s.holds("ann", 10, 0, 1, "a")
	s.holds("ann", 20, 10, 2, "b")
}
