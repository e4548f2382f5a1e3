package lock

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"

	"herald/internal/testing/redistest"
)

func TestScriptRefusesLowerTokens(t *testing.T) {
	t.Parallel()
	for name, addr := range map[string]string{"miniredis": miniredis.RunT(t).Addr(), "redis": redistest.Start(t).Addr} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rdb, ctx := client(addr), t.Context()
			defer rdb.Close()
			seen := NewScript(`return {#KEYS, #ARGV, KEYS[1], ARGV[1], ARGV[2]}`)
			v, err := seen.Run(ctx, rdb, "g", 5, []string{"k"}, "a", 7)
			if got := fmt.Sprint(v); err != nil || got != "[1 2 k a 7]" {
				t.Errorf("the script sees %s, %v", got, err)
			}
			for _, c := range []struct {
				token Token
				want  error
			}{{6, nil}, {6, nil}, {5, ErrFenced}, {1764000000000001, nil}, {1764000000000000, ErrFenced}, {6, ErrFenced}} {
				if _, err := write.Run(ctx, rdb, "g", c.token, []string{"k"}, int64(c.token)); !errors.Is(err, c.want) {
					t.Errorf("token %d: %v, want %v", c.token, err, c.want)
				}
			}
			if v := rdb.Get(ctx, "k").Val(); v != "1764000000000001" {
				t.Errorf("written: %s", v)
			}
			if v, err := NewScript(`return redis.call('GET', 'none')`).Run(ctx, rdb, "h", 1, nil); v != nil || err != nil {
				t.Errorf("nil: %v, %v", v, err)
			}
			if _, err := NewScript(`return redis.error_reply('MINE is wrong')`).Run(ctx, rdb, "h", 1, nil); err == nil || errors.Is(err, ErrFenced) || !strings.Contains(err.Error(), "MINE is wrong") {
				t.Errorf("the script's own error: %v", err)
			}
		})
	}
}
