package wire

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// ErrRedis says that Redis answered a PUBLISH with something else than a number.
var ErrRedis = errors.New("unexpected answer of Redis")

// Publish is Redis's command, in its protocol.
func Publish(channel string, payload []byte) []byte {
	b := append([]byte("*3\r\n"), bulk([]byte("PUBLISH"))...)
	b = append(b, bulk([]byte(channel))...)
	return append(b, bulk(payload)...)
}

func bulk(p []byte) []byte {
	b := append([]byte{'$'}, strconv.Itoa(len(p))...)
	b = append(b, "\r\n"...)
	b = append(b, p...)
	return append(b, "\r\n"...)
}

// CountIntegers counts the complete integer replies in b and returns how many
// bytes they are; the rest is incomplete.
func CountIntegers(b []byte) (replies, n int, err error) {
	for {
		i := bytes.IndexByte(b[n:], '\n')
		if i < 0 {
			return replies, n, nil
		}
		if b[n] != ':' {
			return replies, n, fmt.Errorf("%w: %.80q", ErrRedis, b[n:n+i])
		}
		replies++
		n += i + 1
	}
}
