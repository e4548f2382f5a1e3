package foreign

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/internal/redisx"
)

//go:embed read.lua
var readLua string

var readScript = redis.NewScript(readLua)

// answerBytes bounds one reply, so that it fits into a call's budget.
const answerBytes = 1 << 20

// row is a session in Redis; the zero value means none.
type row struct {
	value   []byte
	expires time.Time
}

// read reads the sessions of some keys. It returns a prefix of them, at least one.
func (s *Store) read(ctx context.Context, keys []string, slide time.Duration) ([]row, error) {
	ctx, cancel := context.WithTimeout(ctx, s.budget)
	defer cancel()
	list, err := readScript.Run(ctx, s.rdb, keys, MaxBytes, answerBytes, slide.Milliseconds()).Slice()
	if err != nil {
		return nil, redisx.Unavailable("sessions", err)
	}
	if len(list) == 0 || len(list) > len(keys) {
		return nil, redisx.Unavailable("sessions", fmt.Errorf("%w: %d rows", errAnswer, len(list)))
	}
	rows := make([]row, len(list))
	for i, v := range list {
		if rows[i], err = parseRow(v); err != nil {
			return nil, redisx.Unavailable("sessions", err)
		}
	}
	return rows, nil
}

// parseRow names only types in its errors: values may be secret.
func parseRow(v any) (row, error) {
	if v == nil {
		return row{}, nil
	}
	pair, _ := v.([]any)
	if len(pair) != 2 {
		return row{}, fmt.Errorf("%w of type %T", errAnswer, v)
	}
	value, ok := pair[0].(string)
	ms, ok2 := pair[1].(int64)
	if !ok || !ok2 {
		return row{}, fmt.Errorf("%w of types %T, %T", errAnswer, pair[0], pair[1])
	}
	r := row{value: []byte(value)}
	if ms >= 0 {
		r.expires = time.UnixMilli(ms).UTC()
	}
	return r, nil
}
