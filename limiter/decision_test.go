package limiter

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestHeaders(t *testing.T) {
	publish := Limit{N: 1000, Per: time.Minute}
	at := time.Unix(1764000000, 0)
	for _, c := range []struct {
		name string
		d    Decision
		want string
	}{
		{"allowed", Decision{Allowed: true, Scope: "publish", Limit: publish, Remaining: 999, ResetAfter: time.Minute, Now: at.Add(time.Microsecond)},
			`X-RateLimit-Limit: 1000 | X-RateLimit-Remaining: 999 | X-RateLimit-Reset: 1764000061 | RateLimit-Policy: "publish";q=1000;w=60 | RateLimit: "publish";r=999;t=60`},
		{"on the second", Decision{Allowed: true, Scope: "connect", Limit: publish, Remaining: 5, ResetAfter: 10 * time.Second, Now: at},
			`X-RateLimit-Limit: 1000 | X-RateLimit-Remaining: 5 | X-RateLimit-Reset: 1764000010 | RateLimit-Policy: "connect";q=1000;w=60 | RateLimit: "connect";r=5;t=10`},
		{"denied", Decision{Scope: "publish", Limit: publish, ResetAfter: time.Microsecond, RetryAfter: time.Microsecond, Now: at},
			`X-RateLimit-Limit: 1000 | X-RateLimit-Remaining: 0 | X-RateLimit-Reset: 1764000001 | RateLimit-Policy: "publish";q=1000;w=60 | RateLimit: "publish";r=0;t=1 | Retry-After: 1`},
		{"denied, rounded up", Decision{Scope: "p", Limit: Limit{N: 1, Per: 1500 * time.Millisecond}, RetryAfter: time.Second + 1, Now: at},
			`X-RateLimit-Limit: 1 | X-RateLimit-Remaining: 0 | X-RateLimit-Reset: 1764000000 | RateLimit-Policy: "p";q=1;w=2 | RateLimit: "p";r=0;t=0 | Retry-After: 2`},
		{"no limit", Decision{Allowed: true}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for name, value := range c.d.Headers() {
				got = append(got, name+": "+value)
			}
			if s := strings.Join(got, " | "); s != c.want {
				t.Errorf("\n got %s\nwant %s", s, c.want)
			}
		})
	}
}

func TestHeadersStopAndAllocateOnce(t *testing.T) {
	d := Decision{Scope: "publish", Limit: Limit{N: MaxN, Per: MaxPer}, Remaining: MaxN, ResetAfter: MaxPer, RetryAfter: MaxPer, Now: start}
	for name := range d.Headers() {
		if name != "X-RateLimit-Limit" {
			t.Fatal(name)
		}
		break
	}
	if n := testing.AllocsPerRun(100, func() {
		for range d.Headers() {
		}
	}); n > 1 {
		t.Fatalf("%v allocations", n)
	}
}

// Allow as a caller sees it: the decision's fields, by Redis's clock.
func TestAllow(t *testing.T) {
	e := newEmbedded(t)
	ctx := context.Background()
	l := New(e.client, "publish", Limit{N: 10, Per: time.Minute}, Options{})
	check := func(n int, want Decision) {
		t.Helper()
		want.Scope, want.Limit, want.Now = "publish", Limit{N: 10, Per: time.Minute}, time.UnixMicro(e.now.UnixMicro())
		if got := l.Allow(ctx, "shop", n); got != want {
			t.Fatalf("Allow(%d)\n got %+v\nwant %+v", n, got, want)
		}
	}
	check(0, Decision{Allowed: true, Remaining: 10})
	check(11, Decision{TooCostly: true, Remaining: 10, RetryAfter: time.Minute})
	check(6, Decision{Allowed: true, Remaining: 4, ResetAfter: time.Minute})
	e.move(20 * time.Second)
	check(5, Decision{Remaining: 4, ResetAfter: 40 * time.Second, RetryAfter: 40 * time.Second})
	check(4, Decision{Allowed: true, ResetAfter: 40 * time.Second})
	check(-3, Decision{Allowed: true, ResetAfter: 40 * time.Second})
	check(7, Decision{ResetAfter: 40 * time.Second, RetryAfter: time.Minute})
	check(6, Decision{ResetAfter: 40 * time.Second, RetryAfter: 40 * time.Second})
	if got := e.Keys(); !slices.Equal(got, []string{"ratelimit:publish:shop"}) {
		t.Fatalf("keys %v", got)
	}
	if s := l.Stats(); s != (Stats{Allowed: 4, Denied: 4}) {
		t.Fatalf("stats %+v", s)
	}
}

func TestNoLimitAsksNobody(t *testing.T) {
	l := New(nil, "publish", Limit{}, Options{})
	d := l.Allow(t.Context(), "shop", 1<<40)
	if !d.Allowed || d.FailedOpen || len(maps.Collect(d.Headers())) != 0 {
		t.Fatalf("%+v", d)
	}
	if s := l.Stats(); s != (Stats{Allowed: 1}) {
		t.Fatalf("stats %+v", s)
	}
}

func BenchmarkHeaders(b *testing.B) {
	d := Decision{Scope: "publish", Limit: Limit{N: 1000, Per: time.Minute}, Remaining: 999, ResetAfter: time.Minute, Now: start}
	b.ReportAllocs()
	for b.Loop() {
		for range d.Headers() {
		}
	}
}
