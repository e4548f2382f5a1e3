package stream

import (
	"encoding/binary"

	"herald/notify"
)

// The opcodes and bits of RFC 6455, 5.2.
const (
	finBit  = 0x80
	rsvBits = 0x70
	opBits  = 0x0f
	maskBit = 0x80
	lenBits = 0x7f

	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xa

	maxControl = 125 // bytes of a control frame's payload
)

// frameHead is the part of a frame's header that splitting needs.
type frameHead struct {
	first   byte // FIN, reserved bits and opcode
	masked  bool
	head    int // bytes of the header
	payload uint64
}

// parseHead reads a header; ok is false if it isn't complete.
func parseHead(p []byte) (h frameHead, ok bool) {
	if len(p) < 2 {
		return h, false
	}
	h = frameHead{first: p[0], masked: p[1]&maskBit != 0, head: 2}
	extended := 0
	switch h.payload = uint64(p[1] & lenBits); h.payload {
	case 126:
		extended = 2
	case 127:
		extended = 8
	}
	h.head += extended
	if h.masked {
		h.head += 4
	}
	if len(p) < h.head {
		return h, false
	}
	switch extended {
	case 2:
		h.payload = uint64(binary.BigEndian.Uint16(p[2:]))
	case 8:
		h.payload = binary.BigEndian.Uint64(p[2:])
	}
	return h, true
}

func (h frameHead) op() byte     { return h.first & opBits }
func (h frameHead) fin() bool    { return h.first&finBit != 0 }
func (h frameHead) isData() bool { return h.op() <= opBinary }

// valid reports whether a client may send the frame, regardless of the frames before
// it.
func (h frameHead) valid() bool {
	if !h.masked || h.first&rsvBits != 0 {
		return false
	}
	switch h.op() {
	case opContinuation, opText, opBinary:
		return true
	case opClose, opPing, opPong:
		return h.fin() && h.payload <= maxControl
	}
	return false
}

// splitter finds whole messages in the bytes of one client. It refuses frames that
// break the protocol, so that the library only ever parses valid messages.
type splitter struct {
	rest    []byte // the beginning of a message; nil if there is none
	frames  int    // bytes of rest that are whole data frames
	payload int    // bytes of their payloads
}

// piece is what splitter.next found.
type piece uint8

const (
	pieceIncomplete piece = iota // only the beginning of a frame or message is left
	pieceMessage                 // all frames of one message
	piecePing                    // one ping frame
	piecePong                    // one pong frame
	pieceClose                   // one close frame
	pieceInvalid                 // a frame that breaks the protocol
	pieceTooBig                  // a message over the limit
)

// next takes the next piece off p, which begins with the unfinished message, and
// returns what is left of p. raw is part of p. A control frame between the frames of a
// message is taken out, and the frames of the message are joined.
func (c *splitter) next(p []byte) (kind piece, raw, left []byte) {
	for {
		h, ok := parseHead(p[c.frames:])
		if !ok {
			return pieceIncomplete, nil, p
		}
		if !h.valid() || h.isData() && (h.op() == opContinuation) != (c.frames > 0) {
			return pieceInvalid, nil, nil
		}
		if h.isData() && uint64(c.payload)+h.payload > notify.MaxClientFrame {
			return pieceTooBig, nil, nil
		}
		end := c.frames + h.head + int(h.payload)
		if end > len(p) {
			return pieceIncomplete, nil, p
		}
		switch {
		case h.op() == opClose:
			return pieceClose, p[c.frames:end], nil
		case !h.isData():
			return c.control(h, p, end)
		case h.fin():
			c.frames, c.payload = 0, 0
			return pieceMessage, p[:end], p[end:]
		}
		c.frames, c.payload = end, c.payload+int(h.payload)
	}
}

// control takes a ping or pong, which ends at end, out of p.
func (c *splitter) control(h frameHead, p []byte, end int) (kind piece, raw, left []byte) {
	kind = piecePong
	if h.op() == opPing {
		kind = piecePing
	}
	if c.frames == 0 {
		return kind, p[:end], p[end:]
	}
	raw = append([]byte(nil), p[c.frames:end]...)
	return kind, raw, append(p[:c.frames], p[end:]...)
}

// keep copies what is left for the next call, into memory of exactly that size. left
// may be part of rest.
func (c *splitter) keep(left []byte) {
	if len(left) == 0 {
		c.rest = nil
		return
	}
	c.rest = append(make([]byte, 0, len(left)), left...)
}

// pong returns the answer to a masked ping frame (RFC 6455, 5.5.3).
func pong(ping []byte) []byte {
	b := append(make([]byte, 0, len(ping)), finBit|opPong, ping[1]&lenBits)
	return appendPayload(b, ping)
}

// appendPayload appends the unmasked payload of a masked frame.
func appendPayload(b, frame []byte) []byte {
	h, _ := parseHead(frame)
	key := frame[h.head-4 : h.head]
	for i, v := range frame[h.head:] {
		b = append(b, v^key[i&3])
	}
	return b
}
