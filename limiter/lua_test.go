package limiter

import (
	"errors"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/internal/testing/redistest"
)

// A script of another room that asks by Lua counts in the same window as Allow,
// and Decide reads its answer as Allow would have told it.
func TestAdmitInAnotherScript(t *testing.T) {
	rdb := redis.NewClient(&redis.Options{Addr: redistest.Start(t).Addr})
	t.Cleanup(func() { _ = rdb.Close() })
	l := New(rdb, "publish", Limit{N: 3, Per: time.Minute}, Options{Budget: 30 * time.Second})
	l.Allow(t.Context(), "a:b", 1)
	script := redis.NewScript(l.Lua() + "return admit(KEYS[1], ARGV[1])")
	n, err := script.Run(t.Context(), rdb, []string{l.Key("a:b")}, "1,1,1,").Int64Slice()
	if err != nil || len(n) != 10 {
		t.Fatal(n, err)
	}
	for i, remaining := range []int{1, 0, 0} {
		d := l.Decide(1, n[0], [3]int64(n[1+3*i:]), nil)
		if d.Allowed != (i < 2) || d.Remaining != remaining || d.FailedOpen || d.Limit.N != 3 {
			t.Errorf("cost %d: %+v", i, d)
		}
	}
	if d := l.Allow(t.Context(), "a:b", 1); d.Allowed {
		t.Errorf("a fourth is allowed: %+v", d)
	}
	open := l.Decide(1, 0, [3]int64{}, errors.New("no answer"))
	if !open.Allowed || !open.FailedOpen || l.Stats().FailedOpen != 0 {
		t.Errorf("without an answer: %+v, %+v before it passed", open, l.Stats())
	}
	l.CountFailedOpen(open)
	if st := l.Stats(); st != (Stats{Allowed: 3, Denied: 2, FailedOpen: 1}) {
		t.Errorf("counted %+v", st)
	}
	if New(rdb, "x", Limit{}, Options{}).Lua() != "" {
		t.Error("nothing is limited, and yet there is something to ask")
	}
}
