// Package wire encodes and parses the bytes on the load generator's connections:
// messages with a time stamp, request templates, and a minimal parser for HTTP,
// WebSocket and Redis. It opens no connection.
package wire

import (
	"bytes"
	"strconv"
	"time"
)

// A stamp is 26 characters inside a message: a mark, the time the message was due and
// its number, both in hexadecimal. No JSON encoder changes these characters.
const (
	mark     = "@@"
	dueAt    = len(mark)
	numberAt = dueAt + 16
	stampLen = numberAt + 8
)

// Stamp is the due time and the number of a message.
type Stamp struct {
	Due    time.Duration // since the start of the program
	Number uint32
}

// Before reports whether s was due before o, or at the same time with a lower number.
func (s Stamp) Before(o Stamp) bool { return s.Due < o.Due || s.Due == o.Due && s.Number < o.Number }

// placeholder is a stamp of zeros, to be overwritten.
const placeholder = mark + "0000000000000000" + "00000000"

// put writes the stamp over a placeholder.
func (s Stamp) put(b []byte) {
	putHex(b[dueAt:numberAt], uint64(s.Due))
	putHex(b[numberAt:stampLen], uint64(s.Number))
}

const hexDigits = "0123456789abcdef"

func putHex(b []byte, v uint64) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = hexDigits[v&15]
		v >>= 4
	}
}

// FindStamp parses the first stamp in a frame.
func FindStamp(frame []byte) (Stamp, bool) {
	i := bytes.Index(frame, []byte(mark))
	if i < 0 || len(frame) < i+stampLen {
		return Stamp{}, false
	}
	due, ok1 := parseHex(frame[i+dueAt : i+numberAt])
	number, ok2 := parseHex(frame[i+numberAt : i+stampLen])
	return Stamp{Due: time.Duration(due), Number: uint32(number)}, ok1 && ok2
}

func parseHex(b []byte) (v uint64, ok bool) {
	for _, c := range b {
		switch {
		case c >= '0' && c <= '9':
			v = v<<4 | uint64(c-'0')
		case c >= 'a' && c <= 'f':
			v = v<<4 | uint64(c-'a'+10)
		default:
			return 0, false
		}
	}
	return v, true
}

// messageHead is the start of a message; Message completes it.
const messageHead = `{"stamp":"` + placeholder + `","text":"`

// MinMessage is the minimum size of a message with a stamp, in bytes.
const MinMessage = len(messageHead) + len(`"}`)

// Message returns a JSON object of size bytes (at least MinMessage) with a placeholder
// for the stamp.
func Message(size int) []byte {
	b := append(make([]byte, 0, size), messageHead...)
	const words = "Your order has left our warehouse and is on its way. "
	for len(b) < size-len(`"}`) {
		b = append(b, words[len(b)%len(words)])
	}
	return append(b, `"}`...)
}

// UserID returns the id of the i-th user, always seven bytes, for i below a million.
func UserID(i int) string { return string(appendUser(nil, i)) }

const userWidth = 7

func appendUser(b []byte, i int) []byte {
	digits := strconv.AppendUint(make([]byte, 0, 20), uint64(i), 10)
	b = append(b, 'u')
	for range userWidth - 1 - len(digits) {
		b = append(b, '0')
	}
	return append(b, digits...)
}
