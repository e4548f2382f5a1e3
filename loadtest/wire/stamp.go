// Package wire is what goes over the load generator's connections, as bytes:
// messages that say when they were due, requests that are made once and patched,
// and just enough parsing of what comes back. It opens no connection.
package wire

import (
	"bytes"
	"strconv"
	"time"
)

// A stamp is a run of 26 characters inside a message: a mark, when the message
// was due, and its number, in hexadecimal. It passes through every gateway as
// it is, because no encoder of JSON has a reason to change it.
const (
	mark     = "@@"
	dueAt    = len(mark)
	numberAt = dueAt + 16
	stampLen = numberAt + 8
)

// Stamp says when a message was due and which one it is.
type Stamp struct {
	Due    time.Duration // since the program's start
	Number uint32
}

// Before reports whether s was due before o, or as one of the same moment has a
// lower number.
func (s Stamp) Before(o Stamp) bool { return s.Due < o.Due || s.Due == o.Due && s.Number < o.Number }

// placeholder is a stamp of zeros, to be patched.
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

// FindStamp reads the first stamp in a frame.
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

// messageHead is a message's beginning; Message closes it.
const messageHead = `{"stamp":"` + placeholder + `","text":"`

// MinMessage is the smallest message that carries a stamp, in bytes.
const MinMessage = len(messageHead) + len(`"}`)

// Message is a JSON object of exactly size bytes (at least MinMessage) with a
// placeholder for the stamp.
func Message(size int) []byte {
	b := append(make([]byte, 0, size), messageHead...)
	const words = "Your order has left our warehouse and is on its way. "
	for len(b) < size-len(`"}`) {
		b = append(b, words[len(b)%len(words)])
	}
	return append(b, `"}`...)
}

// UserID names the i-th user, all in the same number of bytes: seven, up to a
// million of them.
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
