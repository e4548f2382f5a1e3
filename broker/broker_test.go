package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"herald/internal/redisx"
	"herald/internal/testing/redistest"
	"herald/notify"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func draft(user, message string) notify.Draft {
	return notify.Draft{UserID: user, Message: []byte(message)}
}

// onBoth runs a test on miniredis and on a real Redis.
func onBoth(t *testing.T, f func(t *testing.T, rdb *redis.Client)) {
	t.Run("miniredis", func(t *testing.T) {
		m := miniredis.RunT(t)
		m.ClockTTL(true)
		f(t, client(t, m.Addr()))
	})
	t.Run("redis", func(t *testing.T) { f(t, client(t, redistest.Start(t).Addr)) })
}

// patience is what tests that are not about time allow a busy machine.
const patience = 30 * time.Second

// client returns a client as the gateway configures it.
func client(t testing.TB, addr string) *redis.Client {
	rdb := redis.NewClient(redisx.Configure(&redis.Options{
		Addr: addr, DialTimeout: patience,
		ReadTimeout: patience, WriteTimeout: patience, PoolTimeout: patience, PoolSize: 64,
	}, 0))
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

// subscriber returns a client for Listen.
func subscriber(t testing.TB, addr string) *Subscriber {
	s := NewSubscriber(client(t, addr).Options())
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func publish(t testing.TB, b *Broker, drafts ...notify.Draft) []Receipt {
	t.Helper()
	r, _, err := b.Publish(t.Context(), drafts, Idempotency{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func readAll(t testing.TB, b *Broker, user string) []notify.Frame {
	t.Helper()
	page, err := b.After(t.Context(), user, 0, MaxPage, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	return page.Entries
}

func TestPublishStores(t *testing.T) {
	onBoth(t, func(t *testing.T, rdb *redis.Client) {
		b := New(rdb, Options{Budget: patience})
		before := time.Now().Add(-time.Second).UnixMilli()
		d := draft("42", `{"a" : "é\u0041", "a":1e400}`)
		d.Kind = "order.shipped"
		first := publish(t, b, d)[0]
		second := publish(t, b, draft("42", `2`))[0]
		other := publish(t, b, draft("7", `3`))[0]
		if int64(first.ID) < before || second.ID <= first.ID || first.Nodes != 0 {
			t.Errorf("receipts %+v %+v", first, second)
		}
		log := readAll(t, b, "42")
		if len(log) != 2 || log[0].ID != first.ID || log[0].Prev != 0 || log[1].Prev != first.ID {
			t.Fatalf("log %+v", log)
		}
		if !strings.HasSuffix(log[0].JSON, `"kind":"order.shipped","message":{"a" : "é\u0041", "a":1e400}}`) {
			t.Errorf("frame %s", log[0].JSON)
		}
		if log := readAll(t, b, "7"); len(log) != 1 || log[0].ID != other.ID {
			t.Errorf("other user's log %+v", log)
		}
		for _, key := range []string{"user:{42}:log", "user:{42}:state"} {
			if ttl := rdb.TTL(t.Context(), key).Val(); ttl < 7*24*time.Hour-time.Minute {
				t.Errorf("%s lives %v", key, ttl)
			}
		}
	})
}

func TestIDsNeverGoBack(t *testing.T) {
	m := miniredis.RunT(t)
	b := New(client(t, m.Addr()), Options{Budget: patience})
	now := time.Now()
	m.SetTime(now)
	first := publish(t, b, draft("42", `1`))[0]
	m.SetTime(now.Add(-time.Hour))
	second := publish(t, b, draft("42", `2`))[0]
	if second.ID != first.ID+1 {
		t.Errorf("%d after %d with the clock set back", second.ID, first.ID)
	}
	// The state is lost, the log is not.
	m.Del("user:{42}:state")
	third := publish(t, b, draft("42", `3`))[0]
	if log := readAll(t, b, "42"); third.ID != second.ID+1 || log[2].Prev != second.ID {
		t.Errorf("%d after %d without the state", third.ID, second.ID)
	}
	if s, err := b.State(t.Context(), "42"); err != nil || s.Unread != 3 {
		t.Errorf("state %+v, %v", s, err)
	}
}

func TestManyInOneCall(t *testing.T) {
	onBoth(t, func(t *testing.T, rdb *redis.Client) {
		b := New(rdb, Options{Budget: patience})
		message := []byte(`{"for":"all"}`)
		drafts := []notify.Draft{
			{UserID: "1", Message: message}, {UserID: "2", Message: message},
			draft("1", `"x"`), {UserID: "3", Message: []byte(`5`), Ephemeral: true},
		}
		r := publish(t, b, drafts...)
		if r[2].ID <= r[0].ID || r[3].ID != 0 {
			t.Errorf("receipts %+v", r)
		}
		if log := readAll(t, b, "1"); len(log) != 2 || !strings.HasSuffix(log[1].JSON, `"message":"x"}`) {
			t.Errorf("log of 1: %+v", log)
		}
		if log := readAll(t, b, "2"); len(log) != 1 || !strings.HasSuffix(log[0].JSON, `"message":{"for":"all"}}`) {
			t.Errorf("log of 2: %+v", log)
		}
		if log := readAll(t, b, "3"); len(log) != 0 {
			t.Errorf("an ephemeral one was stored: %+v", log)
		}
	})
}

func TestTrimming(t *testing.T) {
	onBoth(t, func(t *testing.T, rdb *redis.Client) {
		b := New(rdb, Options{Budget: patience, LogLength: 3})
		var ids []notify.ID
		for i := range 5 {
			ids = append(ids, publish(t, b, draft("42", fmt.Sprint(i)))[0].ID)
		}
		log := readAll(t, b, "42")
		if len(log) != 3 || log[0].ID != ids[2] || log[0].Prev != ids[1] {
			t.Errorf("log %+v", log)
		}
		if s, err := b.State(t.Context(), "42"); err != nil || s.Unread != 3 || s.Last != ids[4] {
			t.Errorf("state %+v, %v", s, err)
		}
	})
}

func TestRetention(t *testing.T) {
	m := miniredis.RunT(t)
	m.ClockTTL(true)
	b := New(client(t, m.Addr()), Options{Budget: patience, LogRetention: time.Hour})
	now := time.Now()
	m.SetTime(now)
	publish(t, b, draft("42", `1`))
	m.SetTime(now.Add(40 * time.Minute))
	second := publish(t, b, draft("42", `2`))[0]
	m.SetTime(now.Add(80 * time.Minute))
	publish(t, b, draft("42", `3`))
	if log := readAll(t, b, "42"); len(log) != 2 || log[0].ID != second.ID {
		t.Errorf("log %+v", log)
	}
	m.SetTime(now.Add(3 * time.Hour))
	if log := readAll(t, b, "42"); len(log) != 0 {
		t.Errorf("log %+v", log)
	}
	if s, err := b.State(t.Context(), "42"); err != nil || s.Last == 0 || s.Unread != 0 {
		t.Errorf("the state must outlive the log: %+v, %v", s, err)
	}
}

func TestReadState(t *testing.T) {
	m := miniredis.RunT(t)
	m.ClockTTL(true)
	b := New(client(t, m.Addr()), Options{Budget: patience})
	now := time.Now()
	m.SetTime(now)
	var ids []notify.ID
	for i := range 4 {
		d := draft("42", `1`)
		if i%2 == 0 {
			d.TTL = time.Minute
		}
		ids = append(ids, publish(t, b, d)[0].ID)
	}
	check := func(what string, want State, got State, err error) {
		t.Helper()
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", what, got, err, want)
		}
	}
	s, err := b.State(t.Context(), "42")
	check("all", State{Last: ids[3], Unread: 4}, s, err)
	m.SetTime(now.Add(2 * time.Minute))
	s, err = b.State(t.Context(), "42")
	check("two expired", State{Last: ids[3], Unread: 2}, s, err)
	if log := readAll(t, b, "42"); log[0].JSON != "" || log[1].JSON == "" {
		t.Errorf("log %+v", log)
	}
	s, err = b.MarkRead(t.Context(), "42", ids[1])
	check("first two read", State{Last: ids[3], Read: ids[1], Unread: 1, Moved: true}, s, err)
	s, err = b.MarkRead(t.Context(), "42", ids[0])
	check("never back", State{Last: ids[3], Read: ids[1], Unread: 1}, s, err)
	s, err = b.MarkRead(t.Context(), "42", notify.MaxID)
	check("never past the newest", State{Last: ids[3], Read: ids[3], Moved: true}, s, err)
}

// TestExpiringIsBounded: a user who never reads does not collect ids for ever.
func TestExpiringIsBounded(t *testing.T) {
	onBoth(t, func(t *testing.T, rdb *redis.Client) {
		b := New(rdb, Options{Budget: patience, LogLength: 5})
		for range 50 {
			d := draft("42", `1`)
			d.TTL = time.Hour
			publish(t, b, d)
		}
		if n := rdb.ZCard(t.Context(), "user:{42}:expiring").Val(); n > 10 {
			t.Errorf("%d ids for a log of 5", n)
		}
		if s, err := b.State(t.Context(), "42"); err != nil || s.Unread != 5 {
			t.Errorf("state %+v, %v", s, err)
		}
	})
}

// TestPagesAreBoundedInBytes: small entries before large ones do not make a page
// of large ones.
func TestPagesAreBoundedInBytes(t *testing.T) {
	onBoth(t, func(t *testing.T, rdb *redis.Client) {
		b := New(rdb, Options{Budget: patience})
		var drafts []notify.Draft
		for i := range 200 {
			d := draft("42", `1`)
			if i >= 100 {
				d = draft("42", `"`+strings.Repeat("x", 60_000)+`"`)
			}
			drafts = append(drafts, d)
		}
		for part := range slices.Chunk(drafts, 20) {
			publish(t, b, part...)
		}
		var got int
		for after, more := notify.ID(0), true; more; {
			page, err := b.After(t.Context(), "42", after, MaxPage, 128<<10)
			if err != nil {
				t.Fatal(err)
			}
			size := 0
			for _, m := range page.Entries {
				size += len(m.JSON)
				after = m.ID
			}
			if got += len(page.Entries); size > 128<<10+8*61_000 {
				t.Fatalf("a page of %d bytes", size)
			}
			more = page.Full
		}
		if got != len(drafts) {
			t.Errorf("read %d entries", got)
		}
	})
}

func TestIdempotency(t *testing.T) {
	onBoth(t, func(t *testing.T, rdb *redis.Client) {
		b := New(rdb, Options{Budget: patience})
		key := Idempotency{Client: "shop", Key: "k", Print: "p"}
		const clients = 100
		receipts := make([][]Receipt, clients)
		var replays sync.Map
		var wg sync.WaitGroup
		for i := range clients {
			wg.Go(func() {
				r, replayed, err := b.Publish(t.Context(), []notify.Draft{draft("1", `1`), draft("2", `2`)}, key)
				if err != nil {
					t.Error(err)
				}
				receipts[i] = r
				if !replayed {
					replays.Store(i, true)
				}
			})
		}
		wg.Wait()
		first := 0
		replays.Range(func(any, any) bool { first++; return true })
		if first != 1 || len(readAll(t, b, "1")) != 1 || len(readAll(t, b, "2")) != 1 {
			t.Errorf("%d firsts, logs %v", first, readAll(t, b, "1"))
		}
		for _, r := range receipts {
			if fmt.Sprint(r) != fmt.Sprint(receipts[0]) {
				t.Errorf("answers %v and %v", r, receipts[0])
			}
		}
		mismatch := key
		mismatch.Print = "q"
		if _, _, err := b.Publish(t.Context(), []notify.Draft{draft("1", `1`)}, mismatch); !errors.Is(err, ErrMismatch) {
			t.Errorf("same key with another request: %v", err)
		}
		another := key
		another.Client = "other"
		if _, replayed, err := b.Publish(t.Context(), []notify.Draft{draft("1", `1`)}, another); err != nil || replayed {
			t.Errorf("another client's key: %v, replayed %v", err, replayed)
		}
	})
}

func TestStoppedRedisRefusesAndForgets(t *testing.T) {
	srv := redistest.Start(t)
	b := New(client(t, srv.Addr), Options{Budget: 200 * time.Millisecond})
	publish(t, b, draft("42", `1`))
	srv.Stop()
	if _, _, err := b.Publish(t.Context(), []notify.Draft{draft("42", `2`)}, Idempotency{}); !errors.Is(err, redisx.ErrUnavailable) {
		t.Errorf("published to a stopped Redis: %v", err)
	}
	// Redis runs the script when it continues; its publisher gave up long before.
	time.AfterFunc(500*time.Millisecond, srv.Continue)
	c := srv.Client()
	for c.Ping(t.Context()).Err() != nil {
	}
	publish(t, b, draft("42", `3`))
	var frames []string
	for _, m := range readAll(t, b, "42") {
		frames = append(frames, m.JSON[strings.LastIndexByte(m.JSON, ':'):])
	}
	if got := strings.Join(frames, " "); got != ":1} :3}" {
		t.Errorf("log has %s", got)
	}
	srv.Kill()
	if _, _, err := b.Publish(t.Context(), []notify.Draft{draft("42", `4`)}, Idempotency{}); !errors.Is(err, redisx.ErrUnavailable) {
		t.Errorf("published to a dead Redis: %v", err)
	}
	if _, err := b.State(t.Context(), "42"); !errors.Is(err, redisx.ErrUnavailable) {
		t.Errorf("state of a dead Redis: %v", err)
	}
}

func TestRedisClockSteps(t *testing.T) {
	m := miniredis.RunT(t)
	b := New(client(t, m.Addr()), Options{Budget: patience})
	now := time.Now()
	for _, step := range []time.Duration{0, time.Hour, -time.Hour, 2 * time.Hour} {
		m.SetTime(now.Add(step))
		publish(t, b, draft("42", `1`))
		publish(t, b, draft("42", `1`))
	}
}

func TestOutOfMemoryAnnouncesNothing(t *testing.T) {
	srv := redistest.Start(t, "--maxmemory", "3mb", "--maxmemory-policy", "noeviction")
	b := New(client(t, srv.Addr), Options{Budget: patience, LogLength: 1 << 20})
	heard := listen(t, b, srv.Addr)
	blob := `"` + strings.Repeat("x", 60_000) + `"`
	var stored int
	for {
		_, _, err := b.Publish(t.Context(), []notify.Draft{draft("42", blob)}, Idempotency{})
		if err != nil {
			if !errors.Is(err, redisx.ErrUnavailable) {
				t.Fatal(err)
			}
			break
		}
		stored++
	}
	for range stored {
		<-heard.messages
	}
	if log := readAll(t, b, "42"); len(log) != stored {
		t.Errorf("%d accepted, %d in the log", stored, len(log))
	}
	select {
	case m := <-heard.messages:
		t.Errorf("announced what was refused: %.80s", m.JSON)
	default:
	}
}

// ear collects what Listen hears.
type ear struct {
	messages   chan addressed
	subscribed chan struct{}
	other      chan string
}

type addressed struct {
	user string
	notify.Frame
}

// listen starts Listen and waits for the subscription.
func listen(t testing.TB, b *Broker, addr string) *ear {
	e := &ear{messages: make(chan addressed, 10_000), subscribed: make(chan struct{}, 100), other: make(chan string, 100)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.Listen(ctx, subscriber(t, addr), Handlers{
			Deliver: func(user string, m notify.Frame) {
				m.JSON = strings.Clone(m.JSON)
				e.messages <- addressed{strings.Clone(user), m}
			},
			Subscribed: func() { e.subscribed <- struct{}{} },
			Channels:   map[string]func(string){"other": func(p string) { e.other <- p }},
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	<-e.subscribed
	return e
}

func TestListen(t *testing.T) {
	onBoth(t, func(t *testing.T, rdb *redis.Client) {
		b := New(rdb, Options{Budget: patience})
		e := listen(t, b, rdb.Options().Addr)
		next := func() addressed { t.Helper(); return <-e.messages }

		r := publish(t, b, draft("42", `{"a" : 1}`))[0]
		if r.Nodes != 1 {
			t.Errorf("announced to %d nodes", r.Nodes)
		}
		if m := next(); m.user != "42" || m.ID != r.ID || m.Prev != 0 || !strings.HasSuffix(m.JSON, `"message":{"a" : 1}}`) {
			t.Errorf("heard %+v", m)
		}
		eph := draft("42", `2`)
		eph.Ephemeral = true
		publish(t, b, eph)
		if m := next(); m.ID != 0 || !strings.HasSuffix(m.JSON, `"message":2}`) {
			t.Errorf("heard %+v", m)
		}
		if _, err := b.MarkRead(t.Context(), "42", r.ID); err != nil {
			t.Fatal(err)
		}
		if m := next(); m.Event != "read" || m.user != "42" || m.JSON != string(notify.ReadFrame(r.ID, 0)) {
			t.Errorf("heard %+v", m)
		}

		for _, foreign := range []string{`{"any":"json"}`, `{"type":"notification","id":1}`, ` 5 `} {
			rdb.Publish(t.Context(), "user:42:events", foreign)
			if m := next(); m.ID != 0 || !strings.HasSuffix(m.JSON, `"message":`+foreign+`}`) || notify.CheckJSON([]byte(m.JSON)) != nil {
				t.Errorf("heard %+v", m)
			}
		}
		dropped := b.SubscriptionStats().Malformed
		rdb.Publish(t.Context(), "user:42:events", `{"not json`)
		rdb.Publish(t.Context(), "user:42:events", "\"\xff\"")
		rdb.Publish(t.Context(), "user:42:events", `"`+strings.Repeat("x", notify.MaxMessageBytes)+`"`)
		rdb.Publish(t.Context(), "user:1:private:events", `1`)
		rdb.Publish(t.Context(), "user::events", `1`)
		rdb.Publish(t.Context(), "herald:read", `nonsense`)
		rdb.Publish(t.Context(), "other", "payload")
		if p := <-e.other; p != "payload" {
			t.Errorf("heard %q", p)
		}
		// miniredis keeps no order between channels and patterns.
		for deadline := time.Now().Add(patience); b.SubscriptionStats().Malformed-dropped < 6 && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		if n := b.SubscriptionStats().Malformed - dropped; n != 6 {
			t.Errorf("%d dropped, want 6", n)
		}
		if len(e.messages) != 0 {
			t.Errorf("also heard %+v", <-e.messages)
		}
	})
}

func TestListenRenews(t *testing.T) {
	srv := redistest.Start(t)
	b := New(client(t, srv.Addr), Options{CanaryEvery: 200 * time.Millisecond})
	e := listen(t, b, srv.Addr)
	awaitHears(t, b, true)
	for range 3 {
		srv.Client().ClientKillByFilter(t.Context(), "TYPE", "pubsub")
		<-e.subscribed
	}
	awaitHears(t, b, true)

	srv.Kill()
	awaitHears(t, b, false)
	srv.Restart()
	<-e.subscribed
	awaitHears(t, b, true)
	publish(t, b, draft("42", `1`))
	<-e.messages
}

// TestListenNoticesSilence: the connection stays open and nothing arrives.
func TestListenNoticesSilence(t *testing.T) {
	srv := redistest.Start(t)
	b := New(client(t, srv.Addr), Options{CanaryEvery: 200 * time.Millisecond})
	e := listen(t, b, srv.Addr)
	awaitHears(t, b, true)
	srv.Stop()
	awaitHears(t, b, false)
	srv.Continue()
	<-e.subscribed
	awaitHears(t, b, true)
}

func awaitHears(t *testing.T, b *Broker, want bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for b.Hears() != want {
		if ctx.Err() != nil {
			t.Fatalf("Hears is not %v after 20 s", want)
		}
		pause(ctx, 2*time.Millisecond)
	}
}

func BenchmarkPublish(b *testing.B) { benchmarkPublish(b, redistest.Start(b).Addr) }

// BenchmarkPublishEmbedded is the same through the Redis of a gateway without one.
func BenchmarkPublishEmbedded(b *testing.B) { benchmarkPublish(b, miniredis.RunT(b).Addr()) }

func benchmarkPublish(b *testing.B, addr string) {
	br := New(client(b, addr), Options{})
	message := []byte(`{"text":"` + strings.Repeat("x", 190) + `"}`)
	b.Run("one", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			publish(b, br, notify.Draft{UserID: "42", Message: message})
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(16)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				publish(b, br, notify.Draft{UserID: "42", Message: message})
			}
		})
	})
}

// TestWaitReplicas: acknowledged means that a replica has it.
func TestWaitReplicas(t *testing.T) {
	primary := redistest.Start(t)
	host, port, _ := strings.Cut(primary.Addr, ":")
	replica := redistest.Start(t, "--replicaof", host+" "+port)
	b := New(client(t, primary.Addr), Options{WaitReplicas: 1, WaitTimeout: 200 * time.Millisecond})
	onReplica := New(client(t, replica.Addr), Options{Budget: patience})
	key := Idempotency{Client: "shop", Key: "1", Print: "p"}
	insist := func(d notify.Draft) (r []Receipt, replayed bool) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		for {
			r, replayed, err := b.Publish(ctx, []notify.Draft{d}, key)
			if err == nil {
				return r, replayed
			}
			if !errors.Is(err, redisx.ErrUnavailable) || ctx.Err() != nil {
				t.Fatal(err)
			}
		}
	}
	insist(draft("42", `1`)) // until the replica has synchronised
	if log := readAll(t, onReplica, "42"); len(log) != 1 {
		t.Fatalf("the replica has %+v", log)
	}

	replica.Stop()
	key.Key = "2"
	// The second is a replay, from another node, of what is stored but not safe.
	for _, b := range []*Broker{b, New(client(t, primary.Addr), b.o)} {
		if _, _, err := b.Publish(t.Context(), []notify.Draft{draft("42", `2`)}, key); !errors.Is(err, redisx.ErrUnavailable) {
			t.Errorf("acknowledged without a replica: %v", err)
		}
	}
	replica.Continue()
	if _, replayed := insist(draft("42", `2`)); !replayed {
		t.Error("published twice")
	}
	if log := readAll(t, onReplica, "42"); len(log) != 2 {
		t.Errorf("the replica has %+v", log)
	}
	primary.Client().ScriptFlush(t.Context())
	key.Key = "3"
	if _, _, err := b.Publish(t.Context(), []notify.Draft{draft("42", `3`)}, key); err != nil {
		t.Errorf("after SCRIPT FLUSH: %v", err)
	}
}
