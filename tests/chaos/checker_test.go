package chaos

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"
)

// check returns every promise that the history breaks. It is a pure function.
func check(events []event, p promise) []violation { return newLedger(events, p).check() }

func (l *ledger) check() []violation {
	l.checkAnswers()
	l.identify()
	l.checkStreams()
	for _, u := range sorted(l.users) {
		l.checkLog(u)
		l.checkPublishingOrder(u)
		for _, d := range u.devices {
			l.checkOnce(d)
			l.checkComplete(d)
		}
	}
	l.checkAllOrNone()
	l.checkGhosts()
	l.checkClosed()
	l.checkFaults()
	return l.broken
}

// checkAnswers: a valid publish is answered 200, or with a status that allows a retry.
func (l *ledger) checkAnswers() {
	for _, o := range sorted(l.publishes) {
		for i, a := range o.attempts {
			if a.status != 200 && !repeatable(a.status) {
				l.violate(ruleAnswer, a.ended, "publish %s, attempt %d: %d", o.name, i+1, a.status)
			}
		}
		if o.acked != 0 && len(o.ids) != len(o.users) {
			l.violate(ruleAnswer, o.acked, "publish %s for %d users has ids %v", o.name, len(o.users), o.ids)
			o.ids = make([]int64, len(o.users))
		}
	}
}

// text returns the publish name in a delivered message.
type text struct{ user, message string }

// identify maps each stored id to its publish.
func (l *ledger) identify() {
	published := map[text]*order{}
	meantFor := map[string][]string{}
	for _, o := range sorted(l.publishes) {
		meantFor[o.message] = o.users
		for i, user := range o.users {
			published[text{user, o.message}] = o
			if o.acked != 0 {
				l.assign(l.user(user), o.ids[i], o, o.acked)
			}
		}
	}
	seen := func(u *account, e event) {
		o := published[text{u.name, e.Message}]
		switch {
		case o == nil && meantFor[e.Message] != nil:
			l.violate(ruleStranger, e.At, "%s got %d, which was for %v: %.80s", cmp.Or(e.Device, "log of "+u.name), e.ID, meantFor[e.Message], e.Message)
		case o == nil:
			l.violate(ruleBytes, e.At, "%s got %d, which nobody has published: %.200q", cmp.Or(e.Device, "log of "+u.name), e.ID, e.Message)
		default:
			l.assign(u, e.ID, o, e.At)
			l.stamp(u, e)
		}
	}
	for _, u := range sorted(l.users) {
		for _, e := range u.log {
			seen(u, e)
		}
		for _, d := range u.devices {
			for _, f := range d.notifications() {
				seen(u, f)
			}
		}
	}
}

// assign records that o is stored for u as id. One id belongs to one publish, and one
// publish has one id.
func (l *ledger) assign(u *account, id int64, o *order, at time.Duration) {
	if other := u.orders[id]; other != nil && other != o {
		l.violate(ruleIdentity, at, "%s's id %d is publish %s and publish %s", u.name, id, other.name, o.name)
		return
	}
	if first, ok := o.stored[u.name]; !ok {
		o.stored[u.name] = id
	} else if first != id && u.orders[id] == nil {
		l.violate(ruleTwice, at, "publish %s has ids %d and %d for %s", o.name, min(id, first), max(id, first), u.name)
	}
	u.orders[id] = o
}

func (l *ledger) stamp(u *account, e event) {
	if ts, ok := u.stamps[e.ID]; ok && ts != e.TS {
		l.violate(ruleIdentity, e.At, "%s's id %d has ts %d and ts %d", u.name, e.ID, ts, e.TS)
	}
	u.stamps[e.ID] = e.TS
}

// checkOnce: no id reaches a device twice, on any of its streams.
func (l *ledger) checkOnce(d *listener) {
	seen := map[int64]event{}
	for _, f := range d.notifications() {
		if before, ok := seen[f.ID]; ok {
			l.violate(ruleTwice, f.At, "%s got %d on stream %d and on stream %d", d.name, f.ID, before.Stream, f.Stream)
		}
		seen[f.ID] = f
	}
}

// checkComplete: in the end a device has received everything stored since its first
// connection, or a gap. An open stream receives it as soon as no fault is in the way,
// without a reconnect.
func (l *ledger) checkComplete(d *listener) {
	i := slices.IndexFunc(d.streams, (*stream).taken)
	if i < 0 {
		l.violate(ruleLate, l.end, "%s has never got a stream", d.name)
		return
	}
	base, _ := d.streams[i].position()
	l.checkMissing(d, base, math.MaxInt64, func(id int64, o *order) {
		if o.acked != 0 {
			l.violate(ruleLost, 0, "%s never got %d (publish %s, acknowledged at %.3fs)", d.name, id, o.name, o.acked.Seconds())
		} else {
			l.violate(ruleSplit, 0, "%s never got %d (publish %s, not acknowledged), which others have", d.name, id, o.name)
		}
	})
	l.checkPresent(d, l.settled, "settled")
	l.checkPresent(d, l.resumed, "resumed")
	if l.settled == 0 {
		return
	}
	missing := 0
	l.checkMissing(d, base, l.settled, func(int64, *order) { missing++ })
	if missing > 0 {
		l.violate(ruleLate, l.settled, "%s, with its stream open, still had to get %d notifications", d.name, missing)
	}
}

// checkMissing calls f with each notification that was stored for the device after base
// and had not reached it by that time.
func (l *ledger) checkMissing(d *listener, base int64, by time.Duration, missing func(int64, *order)) {
	got := map[int64]bool{}
	for _, f := range d.notifications() {
		if f.At <= by {
			got[f.ID] = true
		}
	}
	holes := slices.DeleteFunc(d.holes(), func(h hole) bool { return h.at > by })
	for _, id := range slices.Sorted(maps.Keys(d.user.orders)) {
		told := slices.ContainsFunc(holes, func(h hole) bool { return h.after < id && id < h.next })
		if id > base && !got[id] && !told {
			missing(id, d.user.orders[id])
		}
	}
}

func (l *ledger) checkPresent(d *listener, at time.Duration, when string) {
	if at == 0 {
		l.violate(ruleLate, l.end, "the history never came to %q", when)
		return
	}
	if !slices.ContainsFunc(d.streams, func(s *stream) bool { return s.openAt(at) }) {
		l.violate(ruleLate, at, "%s has no stream although nothing is in its way (%s)", d.name, when)
	}
}

// checkLog: the final log in Redis is one chain, numbered without holes. It holds
// everything acknowledged, unless the scenario allows loss.
func (l *ledger) checkLog(u *account) {
	held := map[int64]bool{}
	for i, e := range u.log {
		held[e.ID] = true
		if i == 0 {
			continue
		}
		if before := u.log[i-1]; e.Prev != before.ID || e.Count != before.Count+1 || e.ID <= before.ID {
			l.violate(ruleChain, 0, "log of %s: entry %d (prev %d, number %d) follows %d (number %d)", u.name, e.ID, e.Prev, e.Count, before.ID, before.Count)
		}
	}
	if l.promise.Loses || l.resumed == 0 {
		return
	}
	for _, id := range slices.Sorted(maps.Keys(u.orders)) {
		if o := u.orders[id]; o.acked != 0 && !held[id] {
			l.violate(ruleLost, 0, "log of %s does not hold %d (publish %s, acknowledged at %.3fs)", u.name, id, o.name, o.acked.Seconds())
		}
	}
}

// checkPublishingOrder: a publish acknowledged before another began has the lower id.
func (l *ledger) checkPublishingOrder(u *account) {
	ids := slices.Sorted(maps.Keys(u.orders))
	var earliest *order // acknowledged first among those with higher ids
	for _, id := range slices.Backward(ids) {
		o := u.orders[id]
		if earliest != nil && earliest.acked < o.began {
			l.violate(ruleOrder, o.began, "publish %s has id %d of %s, lower than that of %s, which had been acknowledged before", o.name, id, u.name, earliest.name)
		}
		if o.acked != 0 && (earliest == nil || o.acked < earliest.acked) {
			earliest = o
		}
	}
}

// checkAllOrNone: a publish for several users is stored for all of them or none.
func (l *ledger) checkAllOrNone() {
	if l.promise.Loses {
		return
	}
	for _, o := range sorted(l.publishes) {
		if n := len(o.stored); n != 0 && n < len(o.users) {
			l.violate(ruleSplit, 0, "publish %s for %v is stored as %v only", o.name, o.users, o.stored)
		}
	}
}

// checkGhosts: after a 503 the notification is never delivered, unless Redis's answer was
// lost.
func (l *ledger) checkGhosts() {
	if n := len(l.ghosts()); l.promise.Ghosts != anyNumber && n > l.promise.Ghosts {
		l.violate(ruleGhost, 0, "%d publishes without a key were answered 503 and stored, %d may be: %v", n, l.promise.Ghosts, l.ghosts())
	}
}

// ghosts returns the publishes that were refused and stored.
func (l *ledger) ghosts() (names []string) {
	for _, o := range sorted(l.publishes) {
		if o.key == "" && o.attempts[0].status == 503 && len(o.stored) > 0 {
			names = append(names, o.name)
		}
	}
	return names
}

func (l *ledger) checkClosed() {
	if !l.promise.Open {
		return
	}
	for _, s := range sorted(l.streams) {
		if s.taken() && s.ended != 0 && !s.own {
			l.violate(ruleClosed, s.ended, "stream %d of %s on node %d was ended", s.number, s.device.name, s.node)
		}
	}
}
