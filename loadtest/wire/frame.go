package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Opcode of RFC 6455, 5.2.
type Opcode byte

// The opcodes of RFC 6455.
const (
	Continuation Opcode = 0x0
	Text         Opcode = 0x1
	Binary       Opcode = 0x2
	Close        Opcode = 0x8
	Ping         Opcode = 0x9
	Pong         Opcode = 0xa
)

// MaxFrame is the maximum size of a message from a server, in bytes.
const MaxFrame = 4 << 20

// ErrFrame is returned for bytes that are not valid WebSocket frames (RFC 6455, 5).
var ErrFrame = errors.New("bad frame")

// Parser splits a server's bytes into messages. The zero value works. It holds memory
// only while a message is incomplete.
type Parser struct {
	rest  []byte // an incomplete frame
	whole []byte // the fragments so far
	op    Opcode // of the fragmented message; 0: none is open
}

// Feed calls message for each complete message and control frame, in order. The
// payload is valid until message returns. Feed stops at the first error.
func (c *Parser) Feed(b []byte, message func(op Opcode, payload []byte)) error {
	if len(c.rest) > 0 {
		b = append(c.rest, b...)
	}
	for {
		f, n, err := parseFrame(b)
		if err != nil {
			return err
		}
		if n == 0 {
			c.keep(b)
			return nil
		}
		if err := c.frame(f, message); err != nil {
			return err
		}
		b = b[n:]
	}
}

// keep copies the incomplete frame, if any.
func (c *Parser) keep(b []byte) {
	c.rest = append([]byte(nil), b...)
}

func (c *Parser) frame(f frame, message func(Opcode, []byte)) error {
	switch {
	case f.op >= Close || f.fin && f.op != Continuation && c.op == 0:
		message(f.op, f.payload)
	case (f.op == Continuation) == (c.op == 0):
		return fmt.Errorf("%w: unexpected fragment", ErrFrame)
	case len(c.whole)+len(f.payload) > MaxFrame:
		return fmt.Errorf("%w: message over %d bytes", ErrFrame, MaxFrame)
	default:
		c.fragment(f, message)
	}
	return nil
}

func (c *Parser) fragment(f frame, message func(Opcode, []byte)) {
	if f.op != Continuation {
		c.op = f.op
	}
	c.whole = append(c.whole, f.payload...)
	if f.fin {
		message(c.op, c.whole)
		c.op, c.whole = 0, nil
	}
}

type frame struct {
	op      Opcode
	fin     bool
	payload []byte
}

// parseFrame returns the first frame of b and its length; 0 if it is incomplete.
func parseFrame(b []byte) (frame, int, error) {
	if len(b) < 2 {
		return frame{}, 0, nil
	}
	f := frame{op: Opcode(b[0] & 0x0f), fin: b[0]&0x80 != 0}
	if b[0]&0x70 != 0 || b[1]&0x80 != 0 || !known(f.op) {
		return frame{}, 0, fmt.Errorf("%w: header %#x %#x", ErrFrame, b[0], b[1])
	}
	head, size := 2, uint64(b[1])
	switch {
	case f.op >= Close && (size > 125 || !f.fin):
		return frame{}, 0, fmt.Errorf("%w: long or fragmented control frame", ErrFrame)
	case size == 126:
		head = 4
	case size == 127:
		head = 10
	}
	if len(b) < head {
		return frame{}, 0, nil
	}
	switch head {
	case 4:
		size = uint64(binary.BigEndian.Uint16(b[2:]))
	case 10:
		size = binary.BigEndian.Uint64(b[2:])
	}
	if size > MaxFrame {
		return frame{}, 0, fmt.Errorf("%w: frame of %d bytes", ErrFrame, size)
	}
	end := head + int(size)
	if len(b) < end {
		return frame{}, 0, nil
	}
	f.payload = b[head:end:end]
	return f, end, nil
}

func known(op Opcode) bool { return op <= Binary || op >= Close && op <= Pong }

// AppendFrame appends a client's frame with a payload of up to 65,535 bytes. The
// masking key is zero, which leaves the payload as it is: masking protects caching
// proxies, and there are none.
func AppendFrame(dst []byte, op Opcode, payload []byte) []byte {
	dst = append(dst, 0x80|byte(op))
	if len(payload) < 126 {
		dst = append(dst, 0x80|byte(len(payload)))
	} else {
		dst = append(dst, 0x80|126)
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(payload)))
	}
	dst = append(dst, 0, 0, 0, 0)
	return append(dst, payload...)
}

// CloseCode returns the status code of a Close frame's payload; 1005 if there is none
// (RFC 6455, 7.1.5).
func CloseCode(payload []byte) int {
	if len(payload) < 2 {
		return 1005
	}
	return int(binary.BigEndian.Uint16(payload))
}
