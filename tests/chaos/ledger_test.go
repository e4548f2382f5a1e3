package chaos

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"
)

// promise is what must hold for a scenario, in addition to the rules that always hold.
type promise struct {
	Loses  bool `json:"loses"`  // the log may lose acknowledged notifications; clients must get a gap then
	Open   bool `json:"open"`   // no stream may close
	Ghosts int  `json:"ghosts"` // how many attempts without a key may be answered 503 and yet be delivered; anyNumber
}

// anyNumber of ghosts: the network may lose Redis's answers.
const anyNumber = -1

// rule names what a violation has broken.
type rule string

const (
	ruleLost      rule = "lost"      // acknowledged, and a device got neither it nor a gap
	ruleLate      rule = "late"      // an open stream did not deliver it although no fault was in the way
	ruleSplit     rule = "split"     // not acknowledged, and some have it, some don't
	ruleTwice     rule = "twice"     // a device got it twice, or it has two ids
	ruleOrder     rule = "order"     // ids went down, or against the order of publishing
	ruleChain     rule = "chain"     // prev is not the last id of the stream, and there was no gap
	ruleGap       rule = "gap"       // a gap where nothing is missing
	ruleSilence   rule = "silence"   // the log lost what the device had received, and no gap followed
	ruleStranger  rule = "stranger"  // delivered to the wrong user
	ruleBytes     rule = "bytes"     // a message that was never published
	ruleIdentity  rule = "identity"  // one id, two notifications
	ruleHello     rule = "hello"     // not the first frame, of another user, or behind what was acknowledged
	ruleGhost     rule = "ghost"     // refused with 503, and delivered all the same
	ruleAnswer    rule = "answer"    // a publish got a wrong answer, or far too late
	ruleClosed    rule = "closed"    // a stream ended that should have stayed open
	ruleReadiness rule = "readiness" // /health/ready was wrong
)

// violation is one broken promise.
type violation struct {
	Rule   rule
	At     time.Duration // when it was noticed; 0: only at the end
	Detail string
}

func (v violation) String() string {
	return fmt.Sprintf("%-9s %8.3fs  %s", v.Rule, v.At.Seconds(), v.Detail)
}

// ledger is a history sorted by user, device, stream and publish.
type ledger struct {
	promise   promise
	publishes map[string]*order
	streams   map[int]*stream
	devices   map[string]*listener
	users     map[string]*account
	faults    map[int]*fault
	readiness []event
	settled   time.Duration // 0: never
	resumed   time.Duration // 0: never
	end       time.Duration

	broken []violation
}

// order is one publish and its outcome.
type order struct {
	publish
	began    time.Duration // first attempt
	acked    time.Duration // first 200; 0: none
	ids      []int64       // as acknowledged
	attempts []attempt
	stored   map[string]int64 // id by recipient
}

type attempt struct {
	node   int
	began  time.Duration
	ended  time.Duration // 0: never
	status int
}

// stream is one connection of one device.
type stream struct {
	number int
	device *listener
	node   int
	since  int64
	began  time.Duration
	ended  time.Duration // 0: never
	own    bool          // the device ended it
	frames []event
}

// listener is one device's whole life.
type listener struct {
	name    string
	user    *account
	streams []*stream
}

// account holds one user's notifications.
type account struct {
	name    string
	devices []*listener
	orders  map[int64]*order // stored publishes by id: acknowledged, delivered, or in the log
	stamps  map[int64]int64  // ts of each id
	log     []event          // the final log in Redis
}

type fault struct {
	event
	ended time.Duration // 0: never
}

func newLedger(events []event, p promise) *ledger {
	l := &ledger{
		promise: p, publishes: map[string]*order{}, streams: map[int]*stream{}, devices: map[string]*listener{},
		users: map[string]*account{}, faults: map[int]*fault{},
	}
	for _, e := range events {
		l.enter(e)
		l.end = max(l.end, e.At)
	}
	return l
}

// enter adds one event. It panics for an event of a stream or publish that never began:
// the test that wrote the history is wrong.
func (l *ledger) enter(e event) {
	switch e.Kind {
	case publishSent:
		l.enterAttempt(e)
	case publishAnswered:
		l.enterAnswer(e)
	case streamAsked:
		l.enterStream(e)
	case frameReceived:
		s := l.streams[e.Stream]
		s.frames = append(s.frames, e)
	case streamRefused, streamClosed:
		s := l.streams[e.Stream]
		s.ended, s.own = e.At, e.Own
	case faultBegan:
		l.faults[e.Fault] = &fault{event: e}
	case faultEnded:
		l.faults[e.Fault].ended = e.At
	case readinessMoved:
		l.readiness = append(l.readiness, e)
	case logEntry:
		u := l.user(e.User)
		u.log = append(u.log, e)
	case settled:
		l.settled = e.At
	case resumed:
		l.resumed = e.At
	}
}

func (l *ledger) enterAttempt(e event) {
	o := l.publishes[e.Publish]
	if o == nil {
		o = &order{
			publish: publish{name: e.Publish, key: e.Key, users: e.Users, message: e.Message},
			began:   e.At, stored: map[string]int64{},
		}
		l.publishes[e.Publish] = o
	}
	o.attempts = append(o.attempts, attempt{node: e.Node, began: e.At})
}

func (l *ledger) enterAnswer(e event) {
	o := l.publishes[e.Publish]
	a := &o.attempts[e.Attempt-1]
	a.ended, a.status = e.At, e.Status
	if e.Status != 200 {
		return
	}
	if o.acked == 0 {
		o.acked, o.ids = e.At, e.IDs
	} else if !slices.Equal(o.ids, e.IDs) {
		l.violate(ruleTwice, e.At, "publish %s was acknowledged as %v and as %v", o.name, o.ids, e.IDs)
	}
}

func (l *ledger) enterStream(e event) {
	d := l.devices[e.Device]
	if d == nil {
		d = &listener{name: e.Device, user: l.user(e.User)}
		d.user.devices = append(d.user.devices, d)
		l.devices[e.Device] = d
	}
	s := &stream{number: e.Stream, device: d, node: e.Node, since: e.Since, began: e.At}
	d.streams = append(d.streams, s)
	l.streams[e.Stream] = s
}

func (l *ledger) user(name string) *account {
	u := l.users[name]
	if u == nil {
		u = &account{name: name, orders: map[int64]*order{}, stamps: map[int64]int64{}}
		l.users[name] = u
	}
	return u
}

func (l *ledger) violate(r rule, at time.Duration, format string, v ...any) {
	l.broken = append(l.broken, violation{Rule: r, At: at, Detail: fmt.Sprintf(format, v...)})
}

// sorted returns a map's values in the order of its keys, so that the same history gives
// the same order of violations.
func sorted[K interface{ ~int | ~int64 | ~string }, V any](m map[K]V) (list []V) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		list = append(list, m[k])
	}
	return list
}

// taken reports whether the server accepted the stream; a refused stream gets only bye.
func (s *stream) taken() bool { return len(s.frames) > 0 && s.frames[0].Frame != "bye" }

// position returns the id at which the stream began; ok is false if no frame said so.
func (s *stream) position() (id int64, ok bool) {
	switch {
	case !s.taken():
		return 0, false
	case s.since != unset:
		return s.since, true
	}
	return s.frames[0].Last, true
}

// openAt reports whether the stream was open at that time.
func (s *stream) openAt(at time.Duration) bool {
	return s.taken() && s.frames[0].At <= at && (s.ended == 0 || s.ended > at)
}

// notifications returns the stored notifications that reached the device, in order of
// arrival.
func (d *listener) notifications() (list []event) {
	for _, s := range d.streams {
		for _, f := range s.frames {
			if f.Frame == "notification" && f.ID != 0 {
				list = append(list, f)
			}
		}
	}
	return list
}

// hole is the range of a gap frame: everything after one id and before another.
type hole struct {
	at          time.Duration
	after, next int64
}

// holes returns the ranges of the device's gaps. A gap without next reaches to the next
// frame.
func (d *listener) holes() (list []hole) {
	for _, s := range d.streams {
		for _, f := range s.frames {
			switch {
			case f.Frame == "gap" && f.Next != 0:
				list = append(list, hole{f.At, f.After, f.Next})
			case f.Frame == "gap":
				list = append(list, hole{f.At, f.After, math.MaxInt64})
			case f.Frame == "notification" && f.ID != 0:
				for i := range list {
					if list[i].next == math.MaxInt64 {
						list[i].next = f.ID
					}
				}
			}
		}
	}
	return list
}
