package publishing

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/broker"
	"herald/internal/redisx"
	"herald/internal/schedule"
	"herald/internal/testing/redistest"
	"herald/limiter"
	"herald/notify"
	"herald/patterns/idempotent"
)

// muted are the recipients that want nothing.
type muted []string

func (m muted) Mark(_ context.Context, drafts []notify.Draft) {
	for i := range drafts {
		if slices.Contains(m, drafts[i].UserID) {
			drafts[i].Skip = notify.SkipMuted
		}
	}
}

// failing calls after when the pending half is stored.
type failing struct {
	*schedule.Scheduler
	after func()
}

func (f failing) AddPending(ctx context.Context, items []schedule.Item, fence schedule.Fence, commit string) ([]schedule.Placed, error) {
	list, err := f.Scheduler.AddPending(ctx, items, fence, commit)
	f.after()
	return list, err
}

func newPublisher(t *testing.T, r *redistest.Server) (*Publisher, *schedule.Scheduler, *redis.Client) {
	t.Helper()
	rdb := redis.NewClient(redisx.Configure(&redis.Options{Addr: r.Addr}, 2*time.Second))
	t.Cleanup(func() { _ = rdb.Close() })
	limit := limiter.New(rdb, "publish", limiter.Limit{N: 5, Per: time.Hour}, limiter.Options{Budget: 2 * time.Second})
	p := &Publisher{
		Broker: broker.New(rdb, broker.Options{Budget: 2 * time.Second, Admit: limit.Lua()}),
		Limit:  limit,
		Idempotency: func(client string) *idempotent.Processor {
			return idempotent.New(rdb, client, idempotent.Options{Budget: 2 * time.Second})
		},
	}
	s := schedule.New(rdb, "n", p.Due, schedule.Options{Budget: 2 * time.Second, Recheck: 50 * time.Millisecond})
	p.Schedule = s
	return p, s, rdb
}

var entrances = map[string]string{
	"single":    `{"userId":"a","message":1}`,
	"many":      `{"userIds":["a","b"],"message":1}`,
	"batch":     `{"notifications":[{"userId":"a","message":1},{"userId":"b","message":2}]}`,
	"mixed":     `{"notifications":[{"userId":"a","message":1},{"userId":"b","message":2,"delay":1000}]}`,
	"scheduled": `{"userIds":["a","b"],"message":1,"delay":1000}`,
}

func request(t *testing.T, name, key string) *Request {
	t.Helper()
	body, r := []byte(entrances[name]), &Request{Batch: name == "batch" || name == "mixed"}
	var err error
	if r.Batch {
		r.Items, err = notify.ParseBatch(body)
	} else {
		var one notify.Request
		one, err = notify.ParseRequest(body)
		r.Items = []notify.BatchItem{{Request: one}}
	}
	if err = errors.Join(err, r.Check(time.Now())); err != nil {
		t.Fatal(err)
	}
	r.Idempotency = broker.Idempotency{Client: "c", Key: key, Print: name}
	r.Render = func(receipts []Receipt) ([]byte, error) { return json.Marshal(receipts) }
	return r
}

func TestEveryEntrance(t *testing.T) {
	for name := range entrances {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := redistest.Start(t)
			p, _, rdb := newPublisher(t, r)
			publish := func(key string) (Outcome, error) { return p.Publish(t.Context(), "c", request(t, name, key)) }

			first, err := publish("k")
			again, err2 := publish("k")
			if err != nil || err2 != nil || first.Replayed || !again.Replayed || string(first.Body) != string(again.Body) {
				t.Errorf("replay: %s, %v; %s, %v", first.Body, err, again.Body, err2)
			}
			bad := request(t, name, "k")
			bad.Idempotency.Print = "another"
			if _, err := p.Publish(t.Context(), "c2", bad); !errors.Is(err, broker.ErrMismatch) && !errors.Is(err, idempotent.ErrMismatch) {
				t.Errorf("another request with the key: %v", err)
			}
			refused := errors.New("refused")
			free := &Request{Refused: refused}
			if out, err := p.Publish(t.Context(), "free", free); !errors.Is(err, refused) || out.Decision.Remaining != 5 {
				t.Errorf("refused request: %+v, %v", out.Decision, err)
			}
			for range 5 {
				_, _ = publish("")
			}
			if out, err := publish(""); !errors.Is(err, ErrDenied) || out.Decision.RetryAfter <= 0 {
				t.Errorf("over the limit: %+v, %v", out.Decision, err)
			}
			before := rdb.XLen(t.Context(), "user:{a}:log").Val()
			p.Recipients = muted{"a", "b"}
			out, err := p.Publish(t.Context(), "muted", request(t, name, ""))
			if after := rdb.XLen(t.Context(), "user:{a}:log").Val(); err != nil || after != before {
				t.Errorf("muted: %d notifications, want %d; %s, %v", after, before, out.Body, err)
			}
			r.Kill()
			if _, err := p.Publish(t.Context(), "away", request(t, name, "")); !errors.Is(err, redisx.ErrUnavailable) {
				t.Errorf("Redis away: %v", err)
			}
			if n := p.Limit.Stats().FailedOpen; n != 0 {
				t.Errorf("%d requests answered 503 count as failed open", n)
			}
		})
	}
}

// A mixed batch is cut off between its halves. The contract: after 503 nothing of it is
// delivered. The scheduled half is resolved by the worker, or by the failed request.
func TestMixedBatchCutBetweenItsHalves(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	p, s, rdb := newPublisher(t, r)
	p.Schedule = failing{s, r.Kill}
	if _, err := p.Publish(t.Context(), "c", request(t, "mixed", "")); !errors.Is(err, redisx.ErrUnavailable) {
		t.Fatalf("cut off: %v", err)
	}
	r.Restart()
	const hash = "user:{b}:scheduled"
	if n := rdb.HLen(t.Context(), hash).Val(); n != 1 {
		t.Fatalf("%d entries survived, want the pending one", n)
	}
	runWorker(t, s)
	await(t, "removal of the scheduled half of a batch answered 503", func() bool { return rdb.HLen(t.Context(), hash).Val() == 0 })
	if n := rdb.Exists(t.Context(), "user:{a}:log", "user:{b}:log").Val(); n != 0 {
		t.Errorf("%d logs have a notification of a batch answered 503", n)
	}
}

// The node dies after the publish and before Confirm: the worker keeps the later half.
func TestUnconfirmedHalfIsDeliveredWhenTheOtherWasPublished(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	p, s, rdb := newPublisher(t, r)
	later := []schedule.Item{{Draft: notify.Draft{UserID: "b", Message: []byte("2")}, When: notify.When{Delay: time.Second}}}
	idem := broker.Idempotency{Client: "c", Key: "\x00x", Print: "-"}
	if _, err := s.AddPending(t.Context(), later, schedule.Fence{}, idem.RecordKey()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.Broker.Publish(t.Context(), []notify.Draft{{UserID: "a", Message: []byte("1")}}, idem); err != nil {
		t.Fatal(err)
	}
	runWorker(t, s)
	await(t, "the later half of a published batch", func() bool { return rdb.XLen(t.Context(), "user:{b}:log").Val() == 1 })
}

// runWorker delivers due notifications until the test ends.
func runWorker(t *testing.T, s *schedule.Scheduler) {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited a minute for: ", what)
		}
	}
}

func TestKeyedRetrySchedulesAgainWhatWasTakenBack(t *testing.T) {
	t.Parallel()
	p, s, rdb := newPublisher(t, redistest.Start(t))
	ctx, cancel := context.WithCancel(t.Context())
	p.Schedule = failing{s, cancel}
	if _, err := p.Publish(ctx, "c", request(t, "mixed", "k")); !errors.Is(err, redisx.ErrUnavailable) {
		t.Fatalf("cut off: %v", err)
	}
	p.Schedule = s
	hash, log := "user:{b}:scheduled", "user:{a}:log"
	ids := rdb.HKeys(t.Context(), hash).Val()
	if len(ids) != 1 {
		t.Fatalf("pending entries: %q", ids)
	}
	for _, due := range rdb.Keys(t.Context(), "schedule:*:due").Val() {
		rdb.ZAddXX(t.Context(), due, redis.Z{Score: 0, Member: ids[0]}) // its time for a commit is over
	}
	runWorker(t, s)
	await(t, "removal of the pending entry", func() bool { return s.Stats().TakenBack == 1 })
	if n := rdb.HLen(t.Context(), hash).Val(); n != 0 {
		t.Errorf("%d entries are left", n)
	}

	out, err := p.Publish(t.Context(), "c", request(t, "mixed", "k"))
	if n := rdb.HLen(t.Context(), hash).Val(); err != nil || out.Replayed || n != 1 {
		t.Errorf("retry: %d entries, want 1; %s, %v", n, out.Body, err)
	}
	if n := rdb.XLen(t.Context(), log).Val(); n != 1 {
		t.Errorf("retry: %d notifications, want 1", n)
	}
}

// Without a key the failed request removes its pending half itself.
func TestFailedPublishTakesItsScheduledHalfBack(t *testing.T) {
	t.Parallel()
	p, s, rdb := newPublisher(t, redistest.Start(t))
	p.Schedule = failing{s, func() { rdb.Set(t.Context(), "user:{a}:log", "not a stream", 0) }}
	_, err := p.Publish(t.Context(), "c", request(t, "mixed", ""))
	if n := rdb.HLen(t.Context(), "user:{b}:scheduled").Val(); err == nil || n != 0 || s.Stats().TakenBack != 1 {
		t.Errorf("%d entries are left, %d taken back, %v", n, s.Stats().TakenBack, err)
	}
}

func TestDuePublishesEachOnceToThoseWhoWantIt(t *testing.T) {
	t.Parallel()
	p, s, rdb := newPublisher(t, redistest.Start(t))
	if _, err := p.Publish(t.Context(), "c", request(t, "scheduled", "")); err != nil {
		t.Fatal(err)
	}
	var due []schedule.Due
	for _, user := range []string{"a", "b"} {
		list, _, err := s.List(t.Context(), user, "", 10)
		if err != nil || len(list) != 1 {
			t.Fatalf("scheduled for %s: %v, %v", user, list, err)
		}
		due = append(due, schedule.Due{Entry: list[0], Key: "user:{" + user + "}:scheduled", Field: list[0].ID})
	}
	p.Recipients = muted{"b"} // since they were scheduled
	for _, want := range []int{2, 0} {
		if n, err := p.Due(t.Context(), due); n != want || err != nil {
			t.Errorf("%d published, want %d; %v", n, want, err)
		}
	}
	a, b := rdb.XLen(t.Context(), "user:{a}:log").Val(), rdb.XLen(t.Context(), "user:{b}:log").Val()
	if left := rdb.Exists(t.Context(), due[0].Key, due[1].Key).Val(); a != 1 || b != 0 || left != 0 {
		t.Errorf("logs have %d and %d, want 1 and 0; %d users have scheduled entries, want 0", a, b, left)
	}
}
