package presence

import (
	"errors"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"herald/internal/redisx"
	"herald/internal/testing/redistest"
)

func TestSweepRemovesExpiredAndInvalidCounts(t *testing.T) {
	for name, addr := range map[string]string{"miniredis": miniredis.RunT(t).Addr(), "redis": redistest.Start(t).Addr} {
		t.Run(name, func(t *testing.T) {
			n := start(t, addr, "a", Options{})
			n.set("42", 2)
			// await would count the node's memory too.
			for deadline := time.Now().Add(20 * time.Second); !n.rdb.HExists(t.Context(), presenceKey("42"), "a").Val(); time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("the node's count is not in Redis")
				}
			}
			// A dead node's count in a hash that another node keeps alive, and an invalid value.
			n.rdb.HSet(t.Context(), presenceKey("42"), "dead", "3 1700000000000", "odd", "x")
			n.rdb.HSet(t.Context(), presenceKey("7"), "dead", "1 1700000000000")
			if removed, err := n.Sweep(t.Context(), []string{"42", "a:b", "7", "nobody"}); removed != 3 || err != nil {
				t.Errorf("removed %d, %v", removed, err)
			}
			counts := n.rdb.HGetAll(t.Context(), presenceKey("42")).Val()
			if len(counts) != 1 || counts["a"] == "" || n.rdb.Exists(t.Context(), presenceKey("7")).Val() != 0 {
				t.Errorf("left in Redis: %v", counts)
			}
		})
	}
}

func TestSweepWithoutRedis(t *testing.T) {
	srv := redistest.Start(t)
	n := start(t, srv.Addr, "a", Options{Budget: 50 * time.Millisecond})
	srv.Kill()
	if _, err := n.Sweep(t.Context(), []string{"42"}); !errors.Is(err, redisx.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}
