package cache

import (
	"encoding/json"
	"errors"
)

// Codec encodes and decodes values. A decoded value may be shared by several callers,
// so it must be treated as read-only.
type Codec[V any] interface {
	Encode(v V) ([]byte, error)
	Decode(data []byte) (V, error)
}

// JSON is the default Codec; it uses encoding/json.
type JSON[V any] struct{}

// Encode is json.Marshal.
func (JSON[V]) Encode(v V) ([]byte, error) { return json.Marshal(v) }

// Decode is json.Unmarshal.
func (JSON[V]) Decode(data []byte) (v V, err error) { return v, json.Unmarshal(data, &v) }

// The first byte of an entry's content is its kind.
const (
	kindValue    = 'v' // the codec's bytes follow
	kindNotFound = 'n' // nothing follows
)

var errContent = errors.New("not the content of an entry")

func (c *Cache[V]) decode(content string) (v V, err error) {
	if content == string(kindNotFound) {
		return v, ErrNotFound
	}
	if content == "" || content[0] != kindValue {
		return v, errContent
	}
	return c.o.Codec.Decode([]byte(content[1:]))
}

func (c *Cache[V]) encode(v V) ([]byte, error) {
	b, err := c.o.Codec.Encode(v)
	return append([]byte{kindValue}, b...), err
}
