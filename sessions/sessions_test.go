package sessions

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
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

type data = map[string]json.RawMessage

// start is what miniredis's clock says at first, to the millisecond.
var start = time.UnixMilli(1_764_000_000_123).UTC()

func onMini(t testing.TB, o Options) (*miniredis.Miniredis, *redis.Client, *Store) {
	m := miniredis.RunT(t)
	m.ClockTTL(true)
	m.SetTime(start)
	rdb := redis.NewClient(redisx.Configure(&redis.Options{Addr: m.Addr()}, 0))
	t.Cleanup(func() { _ = rdb.Close() })
	return m, rdb, New(rdb, patient(o))
}

// patient gives a loaded machine the time it takes. The tests of outages alone
// are about the budget, and use its default.
func patient(o Options) Options {
	o.Budget = time.Minute
	return o
}

// onBoth runs a test on miniredis, whose clock stands still, and on a real Redis.
func onBoth(t *testing.T, o Options, test func(*testing.T, *redis.Client, *Store)) {
	t.Run("miniredis", func(t *testing.T) {
		_, rdb, s := onMini(t, o)
		test(t, rdb, s)
	})
	t.Run("redis", func(t *testing.T) {
		rdb := redistest.Start(t).Client()
		test(t, rdb, New(rdb, patient(o)))
	})
}

func create(t testing.TB, s *Store, userID string, d data) (id string, _ Session) {
	t.Helper()
	id, session, err := s.Create(t.Context(), userID, d)
	if err != nil {
		t.Fatal(err)
	}
	return id, session
}

func wantErr(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want %v", what, err, want)
	}
}

func sameData(a, b data) bool {
	x, _ := json.Marshal(texts(a))
	y, _ := json.Marshal(texts(b))
	return string(x) == string(y)
}

func texts(d data) map[string]string {
	m := map[string]string{}
	for name, value := range d {
		m[name] = string(value)
	}
	return m
}

// checkIndex asserts what must hold after every operation: each session expires
// when its user's index says, and each index when its last session does.
func checkIndex(t testing.TB, rdb *redis.Client) {
	t.Helper()
	ctx := t.Context()
	largest := map[string]float64{}
	for _, key := range rdb.Keys(ctx, "session:*").Val() {
		expires := float64(rdb.PExpireTime(ctx, key).Val().Milliseconds())
		index := indexKey(rdb.HGet(ctx, key, "userId").Val())
		score, err := rdb.ZScore(ctx, index, strings.TrimPrefix(key, "session:")).Result()
		if err != nil || score != expires || expires <= 0 {
			t.Errorf("%s expires at %.0f, its index says %.0f (%v)", key, expires, score, err)
		}
		largest[index] = max(largest[index], expires)
	}
	for _, index := range rdb.Keys(ctx, "user:*").Val() {
		expires := float64(rdb.PExpireTime(ctx, index).Val().Milliseconds())
		if expires != largest[index] {
			t.Errorf("%s expires at %.0f, its last session at %.0f", index, expires, largest[index])
		}
	}
}

func TestCreateUsePeek(t *testing.T) {
	onBoth(t, Options{}, func(t *testing.T, rdb *redis.Client, s *Store) {
		id, created := create(t, s, "42", data{"a": json.RawMessage(`{"x": 1.0}`)})
		if !ValidID(id) || created.Handle != Handle(id) || created.Handle == id || created.UserID != "42" {
			t.Errorf("id %q of %+v", id, created)
		}
		if ttl := created.ExpiresAt.Sub(created.CreatedAt); ttl != 24*time.Hour {
			t.Errorf("TTL %v", ttl)
		}
		if age := created.AbsoluteExpiresAt.Sub(created.CreatedAt); age != 30*24*time.Hour {
			t.Errorf("max age %v", age)
		}
		peeked, err := s.Peek(t.Context(), created.Handle)
		if err != nil || !sameSession(peeked, created) {
			t.Errorf("peek: %+v, %v; want %+v", peeked, err, created)
		}
		used, err := s.Use(t.Context(), id)
		if err != nil || used.LastUsedAt.Before(created.LastUsedAt) || !sameData(used.Data, created.Data) {
			t.Errorf("use: %+v, %v", used, err)
		}
		if ttl := used.ExpiresAt.Sub(used.LastUsedAt); ttl != 24*time.Hour {
			t.Errorf("TTL after use %v", ttl)
		}
		checkIndex(t, rdb)
	})
}

func sameSession(a, b Session) bool {
	return a.Handle == b.Handle && a.UserID == b.UserID && a.CreatedAt.Equal(b.CreatedAt) &&
		a.LastUsedAt.Equal(b.LastUsedAt) && a.ExpiresAt.Equal(b.ExpiresAt) &&
		a.AbsoluteExpiresAt.Equal(b.AbsoluteExpiresAt) && sameData(a.Data, b.Data)
}

// Redis is closed here: what is malformed must be refused without asking it.
func TestMalformedNeverReachesRedis(t *testing.T) {
	m, _, s := onMini(t, Options{})
	m.Close()
	good := strings.Repeat("a", 64)
	for _, bad := range []string{"", good[1:], good + "a", strings.ToUpper(good), good[1:] + "g", good[1:] + "*", good[1:] + "\n"} {
		ctx := t.Context()
		_, err := s.Use(ctx, bad)
		wantErr(t, "use "+bad, err, ErrNotFound)
		_, err = s.Peek(ctx, bad)
		wantErr(t, "peek "+bad, err, ErrNotFound)
		_, err = s.Update(ctx, bad, nil)
		wantErr(t, "update "+bad, err, ErrNotFound)
		wantErr(t, "revoke "+bad, s.Revoke(ctx, bad), ErrNotFound)
		expiries, err := s.Expiries(ctx, []Ref{{Handle: bad}})
		if err != nil || !expiries[0].IsZero() {
			t.Errorf("expiries of %q: %v, %v", bad, expiries, err)
		}
	}
	for _, bad := range []string{"", "1:private", "*", "a b", "{a}", "a\n", strings.Repeat("a", 129)} {
		_, _, err := s.Create(t.Context(), bad, nil)
		wantErr(t, "create for "+bad, err, notify.ErrUserID)
		_, err = s.RevokeAll(t.Context(), bad)
		wantErr(t, "revoke all of "+bad, err, notify.ErrUserID)
		_, err = s.List(t.Context(), bad)
		wantErr(t, "list "+bad, err, notify.ErrUserID)
	}
}

func TestUnknownSession(t *testing.T) {
	onBoth(t, Options{}, func(t *testing.T, rdb *redis.Client, s *Store) {
		id := newID()
		_, err := s.Use(t.Context(), id)
		wantErr(t, "use", err, ErrNotFound)
		_, err = s.Peek(t.Context(), Handle(id))
		wantErr(t, "peek", err, ErrNotFound)
		_, err = s.Update(t.Context(), Handle(id), data{"a": json.RawMessage(`1`)})
		wantErr(t, "update", err, ErrNotFound)
		wantErr(t, "revoke", s.Revoke(t.Context(), Handle(id)), ErrNotFound)
		if n, err := s.RevokeAll(t.Context(), "nobody"); n != 0 || err != nil {
			t.Errorf("revoke all: %d, %v", n, err)
		}
		if l, err := s.List(t.Context(), "nobody"); len(l) != 0 || err != nil {
			t.Errorf("list: %v, %v", l, err)
		}
		if keys := rdb.Keys(t.Context(), "*").Val(); len(keys) != 0 {
			t.Errorf("asking left keys behind: %q", keys)
		}
	})
}

// Whatever else lies under session:<handle> lets nobody in and reaches no key.
func TestForeignHashes(t *testing.T) {
	onBoth(t, Options{}, func(t *testing.T, rdb *redis.Client, s *Store) {
		for name, change := range map[string]func(key string){
			"no expiry":           func(key string) { rdb.Persist(t.Context(), key) },
			"no user":             func(key string) { rdb.HDel(t.Context(), key, "userId") },
			"no absolute end":     func(key string) { rdb.HDel(t.Context(), key, "absoluteExpiresAt") },
			"past absolute end":   func(key string) { rdb.HSet(t.Context(), key, "absoluteExpiresAt", 1000) },
			"absolute end not ms": func(key string) { rdb.HSet(t.Context(), key, "absoluteExpiresAt", "inf") },
			"user escapes":        func(key string) { rdb.HSet(t.Context(), key, "userId", "1:private") },
			"user too long":       func(key string) { rdb.HSet(t.Context(), key, "userId", strings.Repeat("a", 129)) },
		} {
			rdb.FlushAll(t.Context())
			id, session := create(t, s, "42", nil)
			change(sessionKey(session.Handle))
			_, err := s.Use(t.Context(), id)
			wantErr(t, name+": use", err, ErrNotFound)
			_, err = s.Peek(t.Context(), session.Handle)
			wantErr(t, name+": peek", err, ErrNotFound)
			_, err = s.Update(t.Context(), session.Handle, nil)
			wantErr(t, name+": update", err, ErrNotFound)
			if keys := rdb.Keys(t.Context(), "user:*").Val(); len(keys) != 1 || keys[0] != indexKey("42") {
				t.Errorf("%s: indexes %q", name, keys)
			}
		}
	})
}

func TestWrongTypeIsNotLoggedOut(t *testing.T) {
	onBoth(t, Options{}, func(t *testing.T, rdb *redis.Client, s *Store) {
		id := newID()
		rdb.Set(t.Context(), sessionKey(Handle(id)), "{}", time.Hour)
		_, err := s.Use(t.Context(), id)
		wantErr(t, "use", err, redisx.ErrUnavailable)
	})
}

// spy counts what the client sends and remembers every argument.
type spy struct {
	commands int
	sent     []string
}

func (s *spy) DialHook(next redis.DialHook) redis.DialHook { return next }

func (s *spy) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		s.saw(cmd)
		return next(ctx, cmd)
	}
}

func (s *spy) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		for _, cmd := range cmds {
			s.saw(cmd)
		}
		return next(ctx, cmds)
	}
}

func (s *spy) saw(cmd redis.Cmder) {
	s.commands++
	s.sent = append(s.sent, cmd.String())
}

func TestIDNeverReachesRedisAndOneRoundTripEach(t *testing.T) {
	onBoth(t, Options{}, func(t *testing.T, rdb *redis.Client, s *Store) {
		var ids []string
		watched := &spy{}
		rdb.AddHook(watched)
		for round := range 2 { // the first loads the scripts
			watched.commands = 0
			id, session := create(t, s, "42", data{"n": json.RawMessage(`1`)})
			id2, _ := create(t, s, "42", nil)
			ids = append(ids, id, id2)
			_, err1 := s.Use(t.Context(), id)
			_, err2 := s.Update(t.Context(), session.Handle, data{"m": json.RawMessage(`2`)})
			_, err3 := s.Peek(t.Context(), session.Handle)
			_, err4 := s.List(t.Context(), "42")
			_, err5 := s.Expiries(t.Context(), []Ref{{Handle: session.Handle}})
			err6 := s.Revoke(t.Context(), session.Handle)
			if err := errors.Join(err1, err2, err3, err4, err5, err6); err != nil {
				t.Fatal(err)
			}
			if round == 1 && watched.commands != 8 {
				t.Errorf("8 operations took %d commands", watched.commands)
			}
		}
		sent, stored := strings.Join(watched.sent, "\n"), everything(t, rdb)
		if !strings.Contains(sent, Handle(ids[1])) || !strings.Contains(stored, Handle(ids[1])) {
			t.Fatal("this test looks in the wrong place: no handle there")
		}
		for _, id := range ids {
			if strings.Contains(sent, id) || strings.Contains(stored, id) {
				t.Errorf("id %s in Redis or on the way there", id)
			}
		}
	})
}

// everything is all keys and values of a Redis as one text.
func everything(t *testing.T, rdb *redis.Client) string {
	var b strings.Builder
	iter := rdb.Scan(t.Context(), 0, "*", 100).Iterator()
	for iter.Next(t.Context()) {
		key := iter.Val()
		b.WriteString(key + "\n")
		switch kind := rdb.Type(t.Context(), key).Val(); kind {
		case "hash":
			for f, v := range rdb.HGetAll(t.Context(), key).Val() {
				b.WriteString(f + " " + v + "\n")
			}
		case "zset":
			b.WriteString(strings.Join(rdb.ZRange(t.Context(), key, 0, -1).Val(), "\n"))
		default:
			t.Errorf("%s is a %s", key, kind)
		}
	}
	if err := iter.Err(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestIDsDiffer(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		id := newID()
		if seen[id] || !ValidID(id) || !ValidHandle(Handle(id)) {
			t.Fatalf("id %q", id)
		}
		seen[id] = true
	}
}

func TestHandleIsSHA256OfTheText(t *testing.T) {
	// printf '%064d' 0 | sha256sum
	const want = "60e05bd1b195af2f94112fa7197a5c88289058840ce7c6df9693756bc6250f55"
	if got := Handle(strings.Repeat("0", 64)); got != want {
		t.Errorf("handle %s, want %s", got, want)
	}
}

func TestList(t *testing.T) {
	onBoth(t, Options{}, func(t *testing.T, rdb *redis.Client, s *Store) {
		var want []Session
		for n := range 5 {
			_, session := create(t, s, "42", data{"n": json.RawMessage(strconv.Itoa(n))})
			want = append(want, session)
		}
		create(t, s, "43", nil)
		slices.SortFunc(want, newestFirst)
		got, err := s.List(t.Context(), "42")
		if err != nil || !slices.EqualFunc(got, want, sameSession) {
			t.Errorf("list: %+v, %v; want %+v", got, err, want)
		}
		// What eviction takes is gone from the list and from the index.
		rdb.Del(t.Context(), sessionKey(want[2].Handle))
		want = slices.Delete(want, 2, 3)
		got, err = s.List(t.Context(), "42")
		if err != nil || !slices.EqualFunc(got, want, sameSession) {
			t.Errorf("list: %+v, %v; want %+v", got, err, want)
		}
		if n := rdb.ZCard(t.Context(), indexKey("42")).Val(); n != 4 {
			t.Errorf("%d handles in the index", n)
		}
		checkIndex(t, rdb)
	})
}

func TestListIsBounded(t *testing.T) {
	onBoth(t, Options{}, func(t *testing.T, _ *redis.Client, s *Store) {
		const n = 80
		full := json.RawMessage(`"` + strings.Repeat("x", MaxDataBytes-10) + `"`)
		for range n {
			create(t, s, "42", data{"a": full})
		}
		list, err := s.List(t.Context(), "42")
		if err != nil || len(list) != n {
			t.Fatalf("%d sessions, %v", len(list), err)
		}
		whole := 0
		for _, session := range list {
			if session.UserID != "42" || session.CreatedAt.IsZero() || session.ExpiresAt.IsZero() {
				t.Errorf("listed %+v", session)
			}
			if session.Data != nil {
				whole++
			}
		}
		if whole < 60 || whole > 65 {
			t.Errorf("%d of %d came with their data", whole, n)
		}
	})
}

func TestExpiries(t *testing.T) {
	onBoth(t, Options{}, func(t *testing.T, rdb *redis.Client, s *Store) {
		_, a := create(t, s, "42", nil)
		_, b := create(t, s, "43", nil)
		_, gone := create(t, s, "42", nil)
		if err := s.Revoke(t.Context(), gone.Handle); err != nil {
			t.Fatal(err)
		}
		refs := []Ref{{Handle: a.Handle}, {Handle: "not a handle"}, {Handle: gone.Handle}, {Handle: b.Handle}}
		for range expiriesChunk {
			refs = append(refs, Ref{Handle: Handle(newID())})
		}
		refs = append(refs, Ref{Handle: a.Handle})
		got, err := s.Expiries(t.Context(), refs)
		if err != nil || len(got) != len(refs) {
			t.Fatalf("%d expiries, %v", len(got), err)
		}
		want := make([]time.Time, len(refs))
		want[0], want[3], want[len(want)-1] = a.ExpiresAt, b.ExpiresAt, a.ExpiresAt
		if !slices.EqualFunc(got, want, time.Time.Equal) {
			t.Error("expiries differ from those of the sessions")
		}
		if none, err := s.Expiries(t.Context(), nil); len(none) != 0 || err != nil {
			t.Errorf("expiries of none: %v, %v", none, err)
		}
		checkIndex(t, rdb)
	})
}

func TestScriptsLostByRedis(t *testing.T) {
	onBoth(t, Options{}, func(t *testing.T, rdb *redis.Client, s *Store) {
		id, _ := create(t, s, "42", nil)
		rdb.ScriptFlush(t.Context())
		if _, err := s.Use(t.Context(), id); err != nil {
			t.Error(err)
		}
	})
}
