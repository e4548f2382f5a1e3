//go:build linux

package crowd

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"herald/loadtest/loop"
	"herald/loadtest/measure"
	"herald/loadtest/wire"
	"herald/notify"
)

// shard is the part of a crowd that lives on one loop.
type shard struct {
	crowd *Crowd
	loop  *loop.Loop

	// Owned by the loop's thread.
	peer    unix.SockaddrInet4 // the library writes into it
	sockets map[int]*Socket    // by descriptor
	buf     []byte             // what is read, for one socket at a time
	latency *measure.Histogram
	endings map[int]int
	left    map[int]notify.ID // the newest id of users whose socket has ended, with Options.Ids
	now     time.Duration     // when buf was read

	received, open, duplicates, disorder atomic.Int64
	_                                    [64]byte // another shard's counters are not on this cache line
}

func newShard(c *Crowd, l *loop.Loop) *shard {
	return &shard{
		crowd: c, loop: l, peer: c.peer, sockets: map[int]*Socket{}, buf: make([]byte, 64<<10),
		latency: measure.NewHistogram(), endings: map[int]int{}, left: map[int]notify.ID{},
	}
}

func (s *shard) closeAll() {
	for _, sock := range s.sockets {
		sock.close()
	}
}

// phase is how far a socket has come.
type phase uint8

const (
	connecting phase = iota // TCP
	upgrading               // the handshake is sent
	greeting                // upgraded, waiting for the server's greeting
	open
	closed
)

// Socket is one client's connection. Owned by its shard's thread.
type Socket struct {
	User int
	Last notify.ID // the newest id seen, with Options.Ids

	shard  *shard
	fd     int
	phase  phase
	paused bool
	code   int // of the Close frame that came; 0: none
	cutter wire.Cutter
	head   []byte // of the handshake's response, while it is incomplete
	dial   *dialer
	due    time.Duration
	since  int64

	recent [remembered]wire.Stamp // the latest notifications, the seen-th at seen % remembered
	seen   int
	newest wire.Stamp
}

// remembered is how many of a socket's latest notifications a further one is
// compared with: what comes again comes soon.
const remembered = 16

// Ready is called by the loop.
func (s *Socket) Ready(events uint32) {
	if s.phase == connecting {
		s.connected()
		return
	}
	loop.Drain(s.fd, events, s.shard.buf, s.take)
}

// take is called with what was read; false: no more of it.
func (s *Socket) take(b []byte, err error) bool {
	if err != nil {
		s.end(err)
		return false
	}
	s.shard.now = loop.Now()
	s.read(b)
	return s.phase != closed && !s.paused
}

func (s *Socket) read(b []byte) {
	if s.phase == upgrading {
		var done bool
		if b, done = s.upgraded(b); !done {
			return
		}
	}
	if err := s.cutter.Feed(b, s.message); err != nil {
		s.end(err)
	}
}

// message is one complete frame or message.
func (s *Socket) message(op wire.Opcode, payload []byte) {
	switch op {
	case wire.Text:
		s.text(payload)
	case wire.Ping:
		s.write(wire.AppendFrame(make([]byte, 0, 8), wire.Pong, payload))
	case wire.Close:
		s.code = wire.CloseCode(payload)
		s.write(wire.AppendFrame(nil, wire.Close, payload))
	}
}

func (s *Socket) text(payload []byte) {
	stamp, ok := wire.FindStamp(payload)
	if s.shard.crowd.o.Ids {
		s.follow(payload)
	}
	if ok {
		s.delivered(stamp)
		return
	}
	answer, opened := s.shard.crowd.speaker.Frame(payload)
	if answer != nil {
		s.write(wire.AppendFrame(nil, wire.Text, answer))
	}
	if opened && s.phase == greeting {
		s.opened()
	}
}

func (s *Socket) delivered(stamp wire.Stamp) {
	sh := s.shard
	if slices.Contains(s.recent[:min(s.seen, remembered)], stamp) {
		sh.duplicates.Add(1)
		return
	}
	s.recent[s.seen%remembered] = stamp
	s.seen++
	if stamp.Before(s.newest) {
		if from := sh.crowd.sequential.Load(); from > 0 && int64(stamp.Due) >= from {
			sh.disorder.Add(1)
		}
	} else {
		s.newest = stamp
	}
	sh.received.Add(1)
	if due := int64(stamp.Due); due >= sh.crowd.from.Load() && due < sh.crowd.until.Load() {
		sh.latency.Record(sh.now - stamp.Due)
	}
	if sh.crowd.o.Delivered != nil {
		sh.crowd.o.Delivered(s, stamp)
	}
}

// follow notes the id of a notification, or of a hello: where to resume. A
// notification whose prev is not the id before it is disorder, and so is a gap.
func (s *Socket) follow(payload []byte) {
	switch {
	case bytes.HasPrefix(payload, []byte(`{"type":"notification"`)):
		head, _, _ := bytes.Cut(payload, []byte(`"message":`))
		id, ok := member(head, `"id":`)
		if !ok {
			return // ephemeral
		}
		if prev, _ := member(head, `"prev":`); prev != s.Last {
			s.shard.disorder.Add(1)
		}
		s.Last = id
	case bytes.HasPrefix(payload, []byte(`{"type":"hello"`)):
		if s.since >= 0 {
			s.Last = notify.ID(s.since)
		} else if last, ok := member(payload, `"last":`); ok {
			s.Last = last
		}
	case bytes.HasPrefix(payload, []byte(`{"type":"gap"`)):
		s.shard.disorder.Add(1)
	}
}

// member reads the number behind a name.
func member(b []byte, name string) (notify.ID, bool) {
	_, rest, ok := bytes.Cut(b, []byte(name))
	if !ok {
		return 0, false
	}
	n := 0
	for n < len(rest) && rest[n] >= '0' && rest[n] <= '9' {
		n++
	}
	id, err := notify.ParseID(string(rest[:n]))
	return id, err == nil
}

// write sends a frame at once. A client's frames are small and few: where the
// kernel takes none, the server reads nothing, and will find out by itself.
func (s *Socket) write(frame []byte) {
	if s.phase == closed {
		return
	}
	n, err := loop.Write(s.fd, frame)
	if err == nil && n < len(frame) {
		err = io.ErrShortWrite
	}
	if err != nil && err != unix.EAGAIN {
		s.end(fmt.Errorf("write: %w", err))
	}
}

// Say sends a text.
func (s *Socket) Say(text []byte) { s.write(wire.AppendFrame(nil, wire.Text, text)) }

// Pause stops reading, as a client does that is too slow.
func (s *Socket) Pause() {
	s.paused = true
	_ = s.shard.loop.Change(s.fd, 0)
}

// Resume ends Pause.
func (s *Socket) Resume() {
	s.paused = false
	_ = s.shard.loop.Change(s.fd, loop.Reading)
}

// Drop closes the connection without a word, as a lost network does.
func (s *Socket) Drop() { s.close() }

// end is the end that nobody here asked for.
func (s *Socket) end(err error) {
	was := s.phase
	if was == closed {
		return
	}
	s.close()
	if was != open {
		s.dial.failed(s, err)
		return
	}
	code := s.code
	if code == 0 {
		code = abnormal
	}
	s.shard.endings[code]++
}

const abnormal = 1006 // RFC 6455, 7.1.5

func (s *Socket) close() {
	if s.phase == closed {
		return
	}
	if s.phase == open {
		s.shard.open.Add(-1)
		if s.shard.crowd.o.Ids {
			s.shard.left[s.User] = s.Last
		}
	}
	s.phase = closed
	delete(s.shard.sockets, s.fd)
	s.shard.loop.Forget(s.fd)
	_ = unix.Close(s.fd)
}
