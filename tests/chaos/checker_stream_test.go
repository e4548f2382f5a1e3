package chaos

import (
	"slices"
	"time"
)

// chain follows one stream from frame to frame.
type chain struct {
	l     *ledger
	s     *stream
	at    int64  // everything up to this id was received or covered by a gap
	sure  bool   // at is exact: the next prev must equal it
	last  int64  // the last notification of this stream
	open  *event // a gap whose next has not come yet
	lossy bool   // gaps are allowed
}

// checkStreams: each stream begins with hello and is one chain of ids.
func (l *ledger) checkStreams() {
	for _, s := range sorted(l.streams) {
		at, ok := s.position()
		if !ok {
			continue
		}
		l.checkHello(s)
		c := chain{l: l, s: s, at: at, sure: true, last: at, lossy: l.promise.Loses}
		for i := range s.frames {
			c.follow(&s.frames[i])
		}
		l.checkSilence(s)
	}
}

func (l *ledger) checkHello(s *stream) {
	hello := s.frames[0]
	if hello.Frame != "hello" || slices.ContainsFunc(s.frames[1:], func(f event) bool { return f.Frame == "hello" }) {
		l.violate(ruleHello, hello.At, "stream %d of %s does not begin with its only hello", s.number, s.device.name)
		return
	}
	if hello.User != s.device.user.name {
		l.violate(ruleHello, hello.At, "stream %d of %s is %s's", s.number, s.device.name, hello.User)
	}
	if l.promise.Loses {
		return
	}
	for id, o := range s.device.user.orders {
		if o.acked != 0 && o.acked < s.began && id > hello.Last {
			l.violate(ruleHello, hello.At, "stream %d of %s is told that %d is the newest, after %d was acknowledged", s.number, s.device.name, hello.Last, id)
			return
		}
	}
}

func (c *chain) follow(f *event) {
	switch {
	case f.Frame == "gap":
		c.gap(f)
	case f.Frame == "notification" && f.ID != 0:
		c.notification(f)
	}
}

func (c *chain) violate(r rule, at time.Duration, format string, v ...any) {
	c.l.violate(r, at, "stream %d of %s: "+format, append([]any{c.s.number, c.s.device.name}, v...)...)
}

func (c *chain) gap(f *event) {
	switch {
	case !c.lossy:
		c.violate(ruleGap, f.At, "gap after %d, next %d, although the log has everything", f.After, f.Next)
	case c.sure && f.After != c.at:
		c.violate(ruleGap, f.At, "gap after %d, but the stream has come to %d", f.After, c.at)
	case f.Next == 0 && !c.lostAfter(f.After):
		c.violate(ruleGap, f.At, "gap after %d, but the log has lost nothing after it", f.After)
	}
	c.sure, c.open = false, nil
	if f.Next != 0 {
		c.open = f
	}
}

// lostAfter reports whether the final log lacks id or a later one.
func (c *chain) lostAfter(id int64) bool {
	u := c.s.device.user
	held := map[int64]bool{}
	for _, e := range u.log {
		held[e.ID] = true
	}
	if !held[id] {
		return true
	}
	for known := range u.orders {
		if known > id && !held[known] {
			return true
		}
	}
	return false
}

func (c *chain) notification(f *event) {
	if f.ID <= c.last && c.sure || f.ID <= f.Prev {
		c.violate(ruleOrder, f.At, "%d (prev %d) after %d", f.ID, f.Prev, c.last)
	}
	switch {
	case c.open != nil && f.ID != c.open.Next:
		c.violate(ruleGap, f.At, "a gap announces %d, and %d follows", c.open.Next, f.ID)
	case c.open != nil && f.Prev == c.open.After:
		c.violate(ruleGap, f.At, "a gap between %d and %d, where nothing is missing", f.Prev, f.ID)
	case c.sure && f.Prev != c.at:
		c.violate(ruleChain, f.At, "%d has prev %d, but the stream has come to %d", f.ID, f.Prev, c.at)
	}
	c.at, c.sure, c.last, c.open = f.ID, true, f.ID, nil
}

// heardOut is the time after hello within which a stream that its device did not close
// must have delivered everything stored.
const heardOut = 5 * time.Second

// checkSilence: a device that has received more than the log holds gets a gap.
func (l *ledger) checkSilence(s *stream) {
	hello := s.frames[0]
	if s.since == unset || s.since <= hello.Last {
		return
	}
	if !l.promise.Loses {
		l.violate(ruleHello, hello.At, "stream %d of %s has %d, and the newest is said to be %d", s.number, s.device.name, s.since, hello.Last)
	}
	end := s.ended
	if end == 0 {
		end = l.end
	}
	told := slices.ContainsFunc(s.frames, func(f event) bool { return f.Frame == "gap" })
	if !told && (len(s.frames) > 1 || end-hello.At > heardOut) {
		l.violate(ruleSilence, hello.At, "stream %d of %s has %d, the log ends at %d, and no gap says so", s.number, s.device.name, s.since, hello.Last)
	}
}
