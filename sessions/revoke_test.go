package sessions

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"herald/internal/redisx"
	"herald/internal/testing/redistest"
)

// listen returns a channel of what is published on RevokedChannel from now on.
func listen(t *testing.T, rdb *redis.Client) <-chan *redis.Message {
	sub := rdb.Subscribe(t.Context(), RevokedChannel)
	if _, err := sub.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sub.Close() })
	return sub.Channel()
}

func heard(t *testing.T, messages <-chan *redis.Message) Revocation {
	t.Helper()
	select {
	case m := <-messages:
		r, err := ParseRevocation(m.Payload)
		if err != nil {
			t.Fatalf("%q: %v", m.Payload, err)
		}
		return r
	case <-time.After(10 * time.Second):
		t.Fatal("no revocation heard")
	}
	return Revocation{}
}

func TestRevokeOne(t *testing.T) {
	onBoth(t, Options{}, func(t *testing.T, rdb *redis.Client, s *Store) {
		messages := listen(t, rdb)
		id, session := create(t, s, "42", nil)
		other, _ := create(t, s, "42", nil)
		if err := s.Revoke(t.Context(), session.Handle); err != nil {
			t.Fatal(err)
		}
		if r := heard(t, messages); r.UserID != "42" || !slices.Equal(r.Handles, []string{session.Handle}) {
			t.Errorf("heard %+v", r)
		}
		_, err := s.Use(t.Context(), id)
		wantErr(t, "use after revoke", err, ErrNotFound)
		wantErr(t, "revoke again", s.Revoke(t.Context(), session.Handle), ErrNotFound)
		if _, err := s.Use(t.Context(), other); err != nil {
			t.Errorf("the other session: %v", err)
		}
		checkIndex(t, rdb)
		if err := s.Revoke(t.Context(), Handle(other)); err != nil {
			t.Fatal(err)
		}
		if keys := rdb.Keys(t.Context(), "*").Val(); len(keys) != 0 {
			t.Errorf("left behind: %q", keys)
		}
	})
}

func TestRevokeAllAnnouncesInChunks(t *testing.T) {
	onBoth(t, Options{}, func(t *testing.T, rdb *redis.Client, s *Store) {
		messages := listen(t, rdb)
		const n = 2*maxRevoked + 7
		want := plant(t, rdb, "42", n)
		_, spared := create(t, s, "43", nil)
		// A dead one counts for nothing and is not announced.
		rdb.Del(t.Context(), sessionKey(want[n-1]))
		want = want[:n-1]
		if got, err := s.RevokeAll(t.Context(), "42"); got != n-1 || err != nil {
			t.Fatalf("revoked %d, %v", got, err)
		}
		var got []string
		for _, size := range []int{maxRevoked, maxRevoked, 6} {
			r := heard(t, messages)
			if r.UserID != "42" || len(r.Handles) != size {
				t.Errorf("heard %d handles of %q, want %d", len(r.Handles), r.UserID, size)
			}
			got = append(got, r.Handles...)
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Error("other handles were announced than revoked")
		}
		if keys := rdb.Keys(t.Context(), "session:*").Val(); len(keys) != 1 || keys[0] != sessionKey(spared.Handle) {
			t.Errorf("%d sessions left", len(keys))
		}
		if again, err := s.RevokeAll(t.Context(), "42"); again != 0 || err != nil {
			t.Errorf("revoked again %d, %v", again, err)
		}
	})
}

// plant writes n sessions of a user straight into Redis, which on miniredis is
// far quicker than to create them.
func plant(t *testing.T, rdb *redis.Client, userID string, n int) []string {
	handles := make([]string, n)
	pipe := rdb.Pipeline()
	for i := range handles {
		handles[i] = Handle(newID())
		pipe.HSet(t.Context(), sessionKey(handles[i]), "userId", userID)
		pipe.ZAdd(t.Context(), indexKey(userID), redis.Z{Score: 1e13, Member: handles[i]})
	}
	if _, err := pipe.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	return handles
}

// A PUBLISH that the ACL forbids ends the script where it stands. If the session
// is gone all the same, the deletion came first.
func TestPublishedAfterTheDeletion(t *testing.T) {
	rdb := redistest.Start(t).Client()
	s := New(rdb, patient(Options{}))
	_, one := create(t, s, "42", nil)
	create(t, s, "43", nil)
	if err := rdb.Do(t.Context(), "ACL", "SETUSER", "default", "resetchannels").Err(); err != nil {
		t.Fatal(err)
	}
	wantErr(t, "revoke", s.Revoke(t.Context(), one.Handle), redisx.ErrUnavailable)
	_, err := s.RevokeAll(t.Context(), "43")
	wantErr(t, "revoke all", err, redisx.ErrUnavailable)
	if keys := rdb.Keys(t.Context(), "*").Val(); len(keys) != 0 {
		t.Errorf("announced before it was deleted: %q", keys)
	}
}

// Whoever hears of a revocation finds the session gone.
func TestHeardAfterTheDeletion(t *testing.T) {
	onBoth(t, Options{}, func(t *testing.T, rdb *redis.Client, s *Store) {
		messages := listen(t, rdb)
		for range 50 {
			_, session := create(t, s, "42", nil)
			done := make(chan error, 1)
			go func() { done <- s.Revoke(context.WithoutCancel(t.Context()), session.Handle) }()
			r := heard(t, messages)
			if rdb.Exists(t.Context(), sessionKey(r.Handles[0])).Val() != 0 {
				t.Error("heard of a revocation before it was done")
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestParseRevocationRefuses(t *testing.T) {
	h := strings.Repeat("a", 64)
	for _, ok := range []string{"42 " + h, "a@b.c_-9 " + h + " " + h, "42" + strings.Repeat(" "+h, maxRevoked)} {
		if _, err := ParseRevocation(ok); err != nil {
			t.Errorf("%.80q: %v", ok, err)
		}
	}
	for _, bad := range []string{
		"", " ", "42", "42 ", " " + h, h, "42  " + h, "42 " + h + " ", "42 " + h + "\n", "42 " + h + "  " + h,
		"4:2 " + h, "* " + h, "42\t" + h, "42 " + strings.ToUpper(h), "42 " + h[1:], "42 " + h + "a", "42 " + h + "," + h,
		"42" + strings.Repeat(" "+h, maxRevoked+1), "42 " + strings.Repeat(" ", 1<<20), `{"userId":"42"}`,
		strings.Repeat("u", 129) + " " + h,
	} {
		if r, err := ParseRevocation(bad); err == nil || r.UserID != "" || r.Handles != nil {
			t.Errorf("%.80q was read as %+v, %v", bad, r, err)
		}
	}
}

// What is accepted says exactly what was published, no byte more.
func FuzzParseRevocation(f *testing.F) {
	h := strings.Repeat("0f", 32)
	for _, seed := range []string{"42 " + h, "42 " + h + " " + h, "42", "", " ", "a:b " + h, "42 " + h + " ", "42 " + strings.ToUpper(h)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, payload string) {
		r, err := ParseRevocation(payload)
		if err != nil {
			return
		}
		if got := r.UserID + " " + strings.Join(r.Handles, " "); got != payload {
			t.Errorf("%q was read as %q", payload, got)
		}
		if checkUser(r.UserID) != nil || len(r.Handles) == 0 || len(r.Handles) > maxRevoked || !all(r.Handles, ValidHandle) {
			t.Errorf("accepted %q", payload)
		}
	})
}

func all(list []string, ok func(string) bool) bool {
	return !slices.ContainsFunc(list, func(s string) bool { return !ok(s) })
}
