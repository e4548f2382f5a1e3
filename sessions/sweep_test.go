package sessions

import (
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/internal/redisx"
)

func TestSweep(t *testing.T) {
	onBoth(t, Options{}, func(t *testing.T, rdb *redis.Client, s *Store) {
		const orphans = 2*sweepHandles + 7
		_, kept := create(t, s, "alice", nil)
		_, gone := create(t, s, "alice", nil)
		later := float64(time.Now().Add(time.Hour).UnixMilli())
		for i := range orphans {
			rdb.ZAdd(t.Context(), indexKey("bob"), redis.Z{Score: later + float64(i), Member: fmt.Sprintf("%064x", i)})
		}
		_, bobs := create(t, s, "bob", nil)
		rdb.Del(t.Context(), sessionKey(gone.Handle)) // as eviction does
		n, err := s.Sweep(t.Context(), []string{"nobody", "alice", "a:b", "bob"})
		if err != nil || n != 1+orphans {
			t.Errorf("removed %d, %v; want %d", n, err, 1+orphans)
		}
		for user, handle := range map[string]string{"alice": kept.Handle, "bob": bobs.Handle} {
			left, err := rdb.ZRange(t.Context(), indexKey(user), 0, -1).Result()
			if err != nil || len(left) != 1 || left[0] != handle {
				t.Errorf("%s is left with %d handles, %v", user, len(left), err)
			}
		}
		if n, err := s.Sweep(t.Context(), []string{"alice", "bob"}); n != 0 || err != nil {
			t.Errorf("again: %d, %v", n, err)
		}
	})
}

func TestSweepWithoutRedis(t *testing.T) {
	m, _, s := onMini(t, Options{})
	m.SetError("ERR away")
	_, err := s.Sweep(t.Context(), []string{"alice"})
	wantErr(t, "sweep", err, redisx.ErrUnavailable)
}
