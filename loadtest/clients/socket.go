//go:build linux

package clients

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

// shard holds the sockets of a Set on one loop.
type shard struct {
	set  *Set
	loop *loop.Loop

	// Owned by the loop's thread.
	peer    unix.SockaddrInet4 // a copy, because unix.Connect writes to it
	sockets map[int]*Socket    // by descriptor
	buf     []byte             // read buffer, shared by the sockets
	latency *measure.Histogram
	endings map[int]int
	left    map[int]notify.ID // by user: the newest id of closed sockets, with Options.Ids
	now     time.Duration     // when buf was read

	received, open, duplicates, disorder atomic.Int64
	_                                    [64]byte // keeps the counters of different shards on different cache lines
}

func newShard(c *Set, l *loop.Loop) *shard {
	return &shard{
		set: c, loop: l, peer: c.peer, sockets: map[int]*Socket{}, buf: make([]byte, 64<<10),
		latency: measure.NewHistogram(), endings: map[int]int{}, left: map[int]notify.ID{},
	}
}

func (s *shard) closeAll() {
	for _, sock := range s.sockets {
		sock.close()
	}
}

// phase is the state of a socket.
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
	code   int // of the received Close frame; 0: none
	parser wire.Parser
	head   []byte // the incomplete response to the handshake
	dial   *dialer
	due    time.Duration
	since  int64

	recent [remembered]wire.Stamp // the latest notifications, a ring indexed by seen
	seen   int
	newest wire.Stamp
}

// remembered is the number of latest notifications that duplicates are searched in.
// A duplicate follows its original closely.
const remembered = 16

// Ready is called by the loop.
func (s *Socket) Ready(events uint32) {
	if s.phase == connecting {
		s.connected()
		return
	}
	loop.Drain(s.fd, events, s.shard.buf, s.take)
}

// take handles what was read. It returns false when reading must stop.
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
	if err := s.parser.Feed(b, s.message); err != nil {
		s.end(err)
	}
}

// message handles a complete message or control frame.
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
	if s.shard.set.o.Ids {
		s.follow(payload)
	}
	if ok {
		s.delivered(stamp)
		return
	}
	answer, opened := s.shard.set.speaker.Frame(payload)
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
		if from := sh.set.sequential.Load(); from > 0 && int64(stamp.Due) >= from {
			sh.disorder.Add(1)
		}
	} else {
		s.newest = stamp
	}
	sh.received.Add(1)
	if due := int64(stamp.Due); due >= sh.set.from.Load() && due < sh.set.until.Load() {
		sh.latency.Record(sh.now - stamp.Due)
	}
	if sh.set.o.Delivered != nil {
		sh.set.o.Delivered(s, stamp)
	}
}

// follow tracks the id after which the socket would resume. A notification whose
// prev is not the last id counts as disorder, and so does a gap frame.
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

// member parses the number that follows name.
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

// write sends a frame without waiting. Client frames are small and few: if the
// kernel buffer is full, the server has stopped reading, and the frame is dropped.
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

// SendText sends a text message.
func (s *Socket) SendText(text []byte) { s.write(wire.AppendFrame(nil, wire.Text, text)) }

// Pause stops reading, like a slow consumer.
func (s *Socket) Pause() {
	s.paused = true
	_ = s.shard.loop.Change(s.fd, 0)
}

// Resume reads again after Pause.
func (s *Socket) Resume() {
	s.paused = false
	_ = s.shard.loop.Change(s.fd, loop.Reading)
}

// Drop closes the connection without a close frame, like a lost network.
func (s *Socket) Drop() { s.close() }

// end handles a connection that the server or the network closed.
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
		if s.shard.set.o.Ids {
			s.shard.left[s.User] = s.Last
		}
	}
	s.phase = closed
	delete(s.shard.sockets, s.fd)
	s.shard.loop.Forget(s.fd)
	_ = unix.Close(s.fd)
}
