package wire

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// ErrRedis is returned for a reply to PUBLISH that is not an integer.
var ErrRedis = errors.New("unexpected reply from Redis")

// Publish returns a PUBLISH command in the Redis protocol.
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

// CountIntegers counts the complete integer replies in b; n is their length in bytes.
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
