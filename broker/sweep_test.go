package broker

import (
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/internal/redisx"
)

func TestSweep(t *testing.T) {
	onBoth(t, func(t *testing.T, rdb *redis.Client) {
		ctx := t.Context()
		b := New(rdb, Options{Budget: patience, LogRetention: 24 * time.Hour})
		// Of a user who got his last under a longer retention than now.
		old := time.Now().Add(-25 * time.Hour).UnixMilli()
		id := strconv.FormatInt(old, 10)
		rdb.XAdd(ctx, &redis.XAddArgs{Stream: logKey("gone"), ID: id + "-0", Values: []string{"f", "{}", "n", "1", "x", "0"}})
		rdb.HSet(ctx, stateKey("gone"), "last", id, "seq", "1")
		rdb.ZAdd(ctx, expiringKey("gone"), redis.Z{Score: 1, Member: id})
		rdb.ZAdd(ctx, expiringKey("stray"), redis.Z{Score: 1, Member: "1"})
		kept := draft("here", `1`)
		kept.TTL = time.Hour
		publish(t, b, kept, draft("lost", `2`))
		rdb.Persist(ctx, logKey("lost"))

		users := []string{"gone", "a:b", "stray", "here", "lost", "nobody"}
		got, err := b.Sweep(ctx, users)
		if want := (Swept{Logs: 1, Expiring: 2, Bounded: 2}); err != nil || got != want {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
		for key, want := range map[string]int64{
			logKey("gone"): 0, expiringKey("gone"): 0, expiringKey("stray"): 0,
			stateKey("gone"): 1, logKey("here"): 1, expiringKey("here"): 1, stateKey("here"): 1, logKey("lost"): 1,
		} {
			left := rdb.PTTL(ctx, key).Val()
			if n := rdb.Exists(ctx, key).Val(); n != want || n == 1 && left <= 0 {
				t.Errorf("%s: %d there, want %d; lives for %v", key, n, want, left)
			}
		}
		if r := publish(t, b, draft("gone", `3`))[0]; int64(r.ID) <= old {
			t.Errorf("id %d after %d", r.ID, old)
		}
		if got, err := b.Sweep(ctx, users); err != nil || got != (Swept{}) {
			t.Errorf("again: %+v, %v", got, err)
		}
	})
}

func TestSweepWithoutRedis(t *testing.T) {
	b := New(client(t, "127.0.0.1:1"), Options{})
	if _, err := b.Sweep(t.Context(), []string{"42"}); !errors.Is(err, redisx.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}
