package foreign

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"herald/internal/redisx"
	"herald/internal/testing/redistest"
	"herald/sessions"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	id     = "Vb2xTqk1-_9LwZ0aYQm3nC8dE5fGhIjK"
	secret = "keyboard cat"
	alice  = `{"cookie":{"originalMaxAge":1000,"expires":"2020-01-01T00:00:00.000Z","httpOnly":true,"path":"/"},"passport":{"user":"alice"}}`
)

func onBoth(t *testing.T, test func(t *testing.T, rdb *redis.Client)) {
	t.Run("miniredis", func(t *testing.T) {
		m := miniredis.RunT(t)
		m.ClockTTL(true)
		rdb := redis.NewClient(redisx.Configure(&redis.Options{Addr: m.Addr()}, 0))
		t.Cleanup(func() { _ = rdb.Close() })
		test(t, rdb)
	})
	t.Run("redis", func(t *testing.T) { test(t, redistest.Start(t).Client()) })
}

// newStore has the time that a loaded machine takes.
func newStore(rdb redis.UniversalClient, format Format, o Options) *Store {
	o.Budget = time.Minute
	if format == Express && o.Secrets == nil {
		o.Secrets = []string{secret}
	}
	return New(rdb, format, o)
}

func set(t *testing.T, rdb *redis.Client, key, value string, ttl time.Duration) {
	t.Helper()
	if err := rdb.Set(t.Context(), key, value, ttl).Err(); err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func signed(id, secret string) string {
	return "s:" + id + "." + string(sign(id, []byte(secret)))
}

// encoded is how the cookie package of Node writes a value.
func encoded(s string) string { return url.QueryEscape(s) }

func TestExpressCookies(t *testing.T) {
	onBoth(t, func(t *testing.T, rdb *redis.Client) {
		set(t, rdb, "sess:"+id, alice, time.Hour)
		for _, long := range []string{strings.Repeat("a", MaxIDBytes+1), strings.Repeat("a", MaxIDBytes), "short-7", "../../etc", "a b c d e f", id + "*", id + "\x00", id + ".x"} {
			set(t, rdb, "sess:"+long, alice, time.Hour)
		}
		s := newStore(rdb, Express, Options{Secrets: []string{"a new secret", secret}})
		good := signed(id, secret)
		for name, c := range map[string]struct {
			cookie string
			ok     bool
		}{
			"as browsers send it":      {encoded(good), true},
			"decoded":                  {good, true},
			"newest secret":            {encoded(signed(id, "a new secret")), true},
			"longest id":               {signed(strings.Repeat("a", MaxIDBytes), secret), true},
			"overlong id":              {signed(strings.Repeat("a", MaxIDBytes+1), secret), false},
			"short id":                 {signed("short-7", secret), false},
			"path in the id":           {signed("../../etc", secret), false},
			"spaces in the id":         {signed("a b c d e f", secret), false},
			"pattern in the id":        {signed(id+"*", secret), false},
			"NUL in the id":            {signed(id+"\x00", secret), false},
			"dot in the id":            {signed(id+".x", secret), false},
			"another session":          {signed("another-session", secret), false},
			"other secret":             {encoded(signed(id, "another secret")), false},
			"empty secret":             {encoded(signed(id, "")), false},
			"other id, same signature": {strings.Replace(good, "s:V", "s:v", 1), false},
			"unsigned":                 {"s:" + id, false},
			"empty signature":          {"s:" + id + ".", false},
			"bare id":                  {id, false},
			"no s:":                    {good[2:], false},
			"capital s":                {"S" + good[1:], false},
			"padded signature":         {good + "=", false},
			"encoded twice":            {encoded(encoded(good)), false},
			"trailing space":           {good + " ", false},
			"tampered signature":       {good[:len(good)-1], false},
			"bad escape":               {"%zz" + good, false},
			"empty":                    {"", false},
			"only a dot":               {"s:.", false},
		} {
			session, err := s.Use(t.Context(), c.cookie)
			if c.ok && (err != nil || session.UserID != "alice" || len(session.Handle) != 64) {
				t.Errorf("%s: %+v, %v", name, session, err)
			}
			if !c.ok {
				wantErr(t, name, err, sessions.ErrNotFound)
			}
		}
	})
}

// The vector is cookie-signature's own (its README): what Node signs, we verify.
func TestSignatureIsNodes(t *testing.T) {
	if got := "hello." + string(sign("hello", []byte("tobiiscool"))); got != "hello.DGDUkGlIkCzPz+C0B064FNgHdEjox7ch8tOBGslZ5QI" {
		t.Errorf("signed %q", got)
	}
}

func TestUsers(t *testing.T) {
	rdb := redistest.Start(t).Client()
	for _, c := range []struct{ path, json, want string }{
		{"", `{"userId":"42"}`, "42"},
		{"", `{"userId":42}`, "42"},
		{"", `{"userId":12345678901234567890123}`, "12345678901234567890123"},
		{"", " {\n\"userId\" : 42 }", "42"},
		{"", `{"userId":"a","userId":"b"}`, "b"},
		{"", `{"userId":"\u0061nn"}`, "ann"},
		{"user.id", `{"user":{"id":"ann@example.com"}}`, "ann@example.com"},
		{"passport.user", `{"passport":{"user":7}}`, "7"},
		{"a.b.c", `{"a":{"b":{"c":"x"}}}`, "x"},
		{"", `{"userid":"42"}`, ""},
		{"", `{"UserId":"42"}`, ""},
		{"", `{"userId":-1}`, ""},
		{"", `{"userId":1.5}`, ""},
		{"", `{"userId":1.0}`, ""},
		{"", `{"userId":1e3}`, ""},
		{"", `{"userId":null}`, ""},
		{"", `{"userId":true}`, ""},
		{"", `{"userId":""}`, ""},
		{"", `{"userId":["42"]}`, ""},
		{"", `{"userId":{"id":"42"}}`, ""},
		{"", `{"userId":"a b"}`, ""},
		{"", `{"userId":"1:private"}`, ""},
		{"", `{"userId":"*"}`, ""},
		{"", `{"userId":"` + strings.Repeat("x", 200) + `"}`, ""},
		{"", `{}`, ""},
		{"", ``, ""},
		{"", `null`, ""},
		{"", `"42"`, ""},
		{"", `[{"userId":"42"}]`, ""},
		{"", `{"userId":"42"`, ""},
		{"", `{"userId":"42"} x`, ""},
		{"a.b", `{"a":"b"}`, ""},
		{"a.b", `{"a.b":"42"}`, ""},
		{"a.0", `{"a":["42"]}`, ""},
		{"", strings.Repeat(`{"userId":`, 20000), ""},
	} {
		set(t, rdb, "session:"+id, c.json, time.Hour)
		session, err := newStore(rdb, JSON, Options{UserPath: c.path}).Use(t.Context(), id)
		if c.want == "" {
			wantErr(t, fmt.Sprintf("%.60s", c.json), err, sessions.ErrNotFound)
		} else if err != nil || session.UserID != c.want {
			t.Errorf("%.60s: %q, %v; want %q", c.json, session.UserID, err, c.want)
		}
	}
}

func TestWhatIsNoSession(t *testing.T) {
	onBoth(t, func(t *testing.T, rdb *redis.Client) {
		s := newStore(rdb, JSON, Options{})
		_, err := s.Use(t.Context(), id)
		wantErr(t, "no key", err, sessions.ErrNotFound)
		rdb.HSet(t.Context(), "session:"+id, "userId", "42")
		_, err = s.Use(t.Context(), id)
		wantErr(t, "a hash", err, sessions.ErrNotFound)
		rdb.Del(t.Context(), "session:"+id)
		fill := func(n int) string {
			head, tail := `{"userId":"42","x":"`, `"}`
			return head + strings.Repeat("x", n-len(head)-len(tail)) + tail
		}
		set(t, rdb, "session:"+id, fill(MaxBytes), time.Hour)
		if _, err = s.Use(t.Context(), id); err != nil {
			t.Errorf("64 KiB: %v", err)
		}
		set(t, rdb, "session:"+id, fill(MaxBytes+1), time.Hour)
		_, err = s.Use(t.Context(), id)
		wantErr(t, "more than 64 KiB", err, sessions.ErrNotFound)
	})
}

func TestExpiry(t *testing.T) {
	onBoth(t, func(t *testing.T, rdb *redis.Client) {
		key, plain := "sess:"+id, newStore(rdb, Express, Options{})
		sliding := newStore(rdb, Express, Options{Slide: 2 * time.Hour})
		for _, c := range []struct {
			name      string
			s         *Store
			has, gets time.Duration
		}{
			{"read only", plain, time.Hour, time.Hour}, // whatever cookie.expires says
			{"sliding", sliding, time.Hour, 2 * time.Hour},
			{"sliding shortens nothing", sliding, 3 * time.Hour, 3 * time.Hour},
			{"no expiry", plain, 0, 0},
			{"sliding gives none", sliding, 0, 0},
		} {
			set(t, rdb, key, alice, c.has)
			if _, err := c.s.Peek(t.Context(), signed(id, secret)); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			if ttl := rdb.PTTL(t.Context(), key).Val(); c.has > 0 && (ttl > c.has || ttl < c.has-time.Minute) {
				t.Errorf("%s: a peek left %v of %v", c.name, ttl, c.has)
			}
			session, err := c.s.Use(t.Context(), signed(id, secret))
			ttl := max(rdb.PTTL(t.Context(), key).Val(), 0)
			if err != nil || ttl > c.gets || c.gets-ttl > time.Minute {
				t.Errorf("%s: %v left, want %v; %v", c.name, ttl, c.gets, err)
			}
			if session.ExpiresAt.IsZero() != (c.gets == 0) {
				t.Errorf("%s: expires at %v", c.name, session.ExpiresAt)
			}
			if want := rdb.PExpireTime(t.Context(), key).Val(); c.gets > 0 && session.ExpiresAt.UnixMilli() != want.Milliseconds() {
				t.Errorf("%s: expires at %d, the key at %d", c.name, session.ExpiresAt.UnixMilli(), want.Milliseconds())
			}
		}
	})
}

func TestExpiries(t *testing.T) {
	onBoth(t, func(t *testing.T, rdb *redis.Client) {
		s := newStore(rdb, JSON, Options{Slide: 10 * time.Hour})
		var held []sessions.Ref
		use := func(name, value string) {
			t.Helper()
			set(t, rdb, "session:"+name, value, time.Hour)
			session, err := s.Use(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, sessions.Ref{Handle: session.Handle, UserID: session.UserID})
		}
		pad := strings.Repeat("x", 20<<10) // so that an answer holds fewer than a group
		for i := range 2*group + 1 {
			use(fmt.Sprintf("session-%d", i), `{"userId":"42","pad":"`+pad+`"}`)
		}
		keys := make([]string, group)
		for i := range keys {
			keys[i] = fmt.Sprintf("session:session-%d", i)
		}
		if rows, err := s.read(t.Context(), keys, 0); err != nil || len(rows) != answerBytes/(20<<10)+1 {
			t.Errorf("%d of %d long rows in one answer, %v", len(rows), group, err)
		}
		rdb.Del(t.Context(), "session:session-0")
		set(t, rdb, "session:session-1", `{"userId":"43"}`, time.Hour)
		set(t, rdb, "session:session-2", `{"userId":42}`, 0)
		set(t, rdb, "session:session-3", `{"userId":null}`, time.Hour)
		rdb.PExpire(t.Context(), "session:session-4", 2*time.Hour)
		held = append(held, sessions.Ref{Handle: sessions.Handle("never-used"), UserID: "42"})
		set(t, rdb, "session:never-used", `{"userId":"42"}`, time.Hour)
		set(t, rdb, "session:", `{"userId":"42"}`, time.Hour)
		got, err := s.Expiries(t.Context(), held)
		if err != nil || len(got) != len(held) {
			t.Fatalf("%d expiries of %d, %v", len(got), len(held), err)
		}
		for i, expires := range got {
			gone := i == 0 || i == 1 || i == 3 || i == len(got)-1
			if expires.IsZero() != gone {
				t.Errorf("session %d: %v", i, expires)
			}
			left := time.Until(expires)
			switch {
			case gone:
			case i == 2 && left < Forever-time.Hour:
				t.Errorf("without expiry: %v", left)
			case i == 4 && (left > 2*time.Hour || left < 2*time.Hour-5*time.Minute):
				t.Errorf("lengthened to 2h: %v", left)
			case i > 4 && (left > 10*time.Hour || left < 10*time.Hour-5*time.Minute):
				t.Errorf("session %d: %v left of the 10h that its use gave it", i, left)
			}
		}
		if none, err := s.Expiries(t.Context(), nil); len(none) != 0 || err != nil {
			t.Errorf("of nothing: %v, %v", none, err)
		}
	})
}

// A session that changes hands is known for both users: the first one's
// connections end with the look that its change brings.
func TestSessionOfTwoUsers(t *testing.T) {
	rdb := redistest.Start(t).Client()
	s := newStore(rdb, JSON, Options{})
	for _, user := range []string{"ann", "bob", "bob"} {
		set(t, rdb, "session:"+id, `{"userId":"`+user+`"}`, time.Hour)
		if _, err := s.Use(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	handle := sessions.Handle(id)
	if got := fmt.Sprint(s.Users(handle)); got != "[ann bob]" {
		t.Errorf("users %s", got)
	}
	got, err := s.Expiries(t.Context(), []sessions.Ref{{Handle: handle, UserID: "ann"}, {Handle: handle, UserID: "bob"}})
	if err != nil || !got[0].IsZero() || got[1].IsZero() {
		t.Errorf("ann's and bob's: %v, %v", got, err)
	}
}

func TestForget(t *testing.T) {
	rdb := redistest.Start(t).Client()
	s := newStore(rdb, JSON, Options{})
	for _, name := range []string{"session-new", "session-old", "session-held"} {
		set(t, rdb, "session:"+name, `{"userId":"42"}`, time.Hour)
		if _, err := s.Use(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		if name != "session-new" {
			s.known[sessions.Handle(name)].used = time.Now().Add(-2 * memory)
		}
	}
	s.Forget(map[string]bool{sessions.Handle("session-held"): true})
	for name, want := range map[string]int{"session-new": 1, "session-old": 0, "session-held": 1} {
		if got := s.Users(sessions.Handle(name)); len(got) != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestRedisStopped(t *testing.T) {
	server := redistest.Start(t)
	rdb := server.Client()
	set(t, rdb, "sess:"+id, alice, time.Hour)
	s := New(rdb, Express, Options{Secrets: []string{secret}, Budget: 50 * time.Millisecond})
	session, err := newStore(rdb, Express, Options{}).Use(t.Context(), signed(id, secret))
	if err != nil {
		t.Fatal(err)
	}
	s.remember(id, session)
	wantOutage := func(t *testing.T) {
		t.Helper()
		for name, ask := range map[string]func(context.Context) error{
			"Use":  func(ctx context.Context) error { _, err := s.Use(ctx, signed(id, secret)); return err },
			"Peek": func(ctx context.Context) error { _, err := s.Peek(ctx, signed(id, secret)); return err },
			"Expiries": func(ctx context.Context) error {
				_, err := s.Expiries(ctx, []sessions.Ref{{Handle: session.Handle, UserID: "alice"}})
				return err
			},
			"Notified": func(ctx context.Context) error { _, err := s.Notified(ctx); return err },
		} {
			if err := ask(t.Context()); !errors.Is(err, redisx.ErrUnavailable) || errors.Is(err, sessions.ErrNotFound) {
				t.Errorf("%s: %v", name, err)
			}
		}
		_, err := s.Use(t.Context(), signed(id, "another secret"))
		wantErr(t, "a bad signature needs no Redis", err, sessions.ErrNotFound)
	}
	server.Stop()
	wantOutage(t)
	server.Continue()
	server.Kill()
	wantOutage(t)
}

func TestErrorsShowNoSecret(t *testing.T) {
	m := miniredis.RunT(t)
	rdb := redis.NewClient(redisx.Configure(&redis.Options{Addr: m.Addr()}, 0))
	defer func() { _ = rdb.Close() }()
	s := newStore(rdb, Express, Options{})
	_, missing := s.Use(t.Context(), signed(id, secret))
	m.SetError("LOADING Redis is loading the dataset in memory")
	_, away := s.Use(t.Context(), signed(id, secret))
	for _, err := range []error{missing, away} {
		if err == nil || strings.Contains(err.Error(), id) || strings.Contains(err.Error(), secret) {
			t.Errorf("error %v", err)
		}
	}
}
