package sessions

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

func TestUpdateMergesShallowly(t *testing.T) {
	onBoth(t, Options{}, func(t *testing.T, rdb *redis.Client, s *Store) {
		_, session := create(t, s, "42", data{
			"keep":   json.RawMessage(`[1]`),
			"change": json.RawMessage(`{"a":1,"b":2}`),
			"remove": json.RawMessage(`true`),
			"never":  json.RawMessage(`null`),
		})
		updated, err := s.Update(t.Context(), session.Handle, data{
			"change": json.RawMessage(`{"a":null}`),
			"remove": json.RawMessage(` null `),
			"absent": json.RawMessage(`null`),
			"add":    json.RawMessage(`"x"`),
		})
		want := data{
			"keep":   json.RawMessage(`[1]`),
			"change": json.RawMessage(`{"a":null}`),
			"add":    json.RawMessage(`"x"`),
		}
		if err != nil || !sameData(updated.Data, want) {
			t.Errorf("update: %q, %v; want %q", updated.Data, err, want)
		}
		if !updated.ExpiresAt.Equal(session.ExpiresAt) || !updated.LastUsedAt.Equal(session.LastUsedAt) {
			t.Errorf("an update moved %+v to %+v", session, updated)
		}
		peeked, err := s.Peek(t.Context(), session.Handle)
		if err != nil || !sameSession(peeked, updated) {
			t.Errorf("peek: %+v, %v; want %+v", peeked, err, updated)
		}
		checkIndex(t, rdb)
	})
}

func TestDataSurvivesByteForByte(t *testing.T) {
	onBoth(t, Options{}, func(t *testing.T, _ *redis.Client, s *Store) {
		for _, value := range []string{
			`1.0`, `1e400`, `12345678901234567890123`, `-0`, `""`, `[]`, `{}`, `{"b":1, "a":{ }}`, `{"a":1,"a":2}`,
			`"\u00e9é\u0000\ud800"`, " [\n1 ] ", `"1:2:3"`, `false`, `"null"`, `"` + strings.Repeat("é", 1000) + `"`,
		} {
			for _, name := range []string{"", "a", "1:2", "data:a", "userId", "é", `"`, strings.Repeat("n", 300)} {
				_, session := create(t, s, "42", data{name: json.RawMessage(value), "z": json.RawMessage(`0`)})
				peeked, err := s.Peek(t.Context(), session.Handle)
				if err != nil || string(peeked.Data[name]) != value || len(peeked.Data) != 2 || peeked.UserID != "42" {
					t.Errorf("%q = %s became %q, %v", name, value, peeked.Data, err)
				}
			}
		}
	})
}

func TestDataRefused(t *testing.T) {
	_, _, s := onMini(t, Options{})
	_, session := create(t, s, "42", nil)
	for _, c := range []struct{ name, value, text string }{
		{"n", ``, `member "n"`},
		{"n", `{`, `member "n"`},
		{"n", `1 2`, `member "n"`},
		{"n", `NaN`, `member "n"`},
		{"n", "\"\xff\"", `member "n"`},
		{"a\nb", `1`, `member "a\nb"`},
		{"a\x00", `1`, `member "a\x00"`},
		{"a\x7f", `1`, `member "a\x7f"`},
		{"a\u0085", `1`, `member "a\u0085"`},
		{"a\n", `null`, `member "a\n"`},
		{"a\xff", `1`, `member "a\xff"`},
		{strings.Repeat("n", 1000), `{`, `member "` + strings.Repeat("n", 64) + `…"`},
	} {
		_, _, err := s.Create(t.Context(), "42", data{c.name: json.RawMessage(c.value)})
		wantRefused(t, err, c.text)
		_, err = s.Update(t.Context(), session.Handle, data{c.name: json.RawMessage(c.value)})
		wantRefused(t, err, c.text)
	}
}

func wantRefused(t *testing.T, err error, text string) {
	t.Helper()
	wantErr(t, text, err, ErrData)
	if err != nil && !strings.Contains(err.Error(), text) {
		t.Errorf("%q does not say %q", err, text)
	}
}

func numbered(prefix string, n int, value string) data {
	d := data{}
	for i := range n {
		d[fmt.Sprintf("%s%d", prefix, i)] = json.RawMessage(value)
	}
	return d
}

func TestMemberLimit(t *testing.T) {
	onBoth(t, Options{}, func(t *testing.T, _ *redis.Client, s *Store) {
		_, _, err := s.Create(t.Context(), "42", numbered("a", MaxMembers+1, "1"))
		wantRefused(t, err, "128 members")
		_, session := create(t, s, "42", numbered("a", MaxMembers, "1"))
		_, err = s.Update(t.Context(), session.Handle, data{"b": json.RawMessage(`1`)})
		wantRefused(t, err, "128 members")
		peeked, err := s.Peek(t.Context(), session.Handle)
		if err != nil || !sameData(peeked.Data, session.Data) {
			t.Errorf("a refused update changed the data: %v", err)
		}
		swap := numbered("b", MaxMembers, "2")
		for name := range session.Data {
			swap[name] = json.RawMessage("null")
		}
		updated, err := s.Update(t.Context(), session.Handle, swap)
		if err != nil || !sameData(updated.Data, numbered("b", MaxMembers, "2")) {
			t.Errorf("swapping all members: %d left, %v", len(updated.Data), err)
		}
		_, err = s.Update(t.Context(), session.Handle, numbered("c", MaxMembers+1, "null"))
		wantRefused(t, err, "128 members")
	})
}

func TestByteLimit(t *testing.T) {
	onBoth(t, Options{}, func(t *testing.T, _ *redis.Client, s *Store) {
		text := func(n int) json.RawMessage { return json.RawMessage(`"` + strings.Repeat("x", n-2) + `"`) }
		_, _, err := s.Create(t.Context(), "42", data{"a": text(MaxDataBytes)})
		wantRefused(t, err, "65536 bytes")
		_, session := create(t, s, "42", data{"a": text(MaxDataBytes - 1)})
		_, err = s.Update(t.Context(), session.Handle, data{"b": text(2)})
		wantRefused(t, err, "65536 bytes")
		// The old value counts no more once it is replaced.
		_, err = s.Update(t.Context(), session.Handle, data{"a": text(MaxDataBytes - 1 - 3), "b": text(2)})
		if err != nil {
			t.Error(err)
		}
		_, err = s.Update(t.Context(), session.Handle, data{"a": text(MaxDataBytes - 1 - 2)})
		wantRefused(t, err, "65536 bytes")
	})
}

// members.lua is the parser here: whatever pack lets through comes back the same.
func FuzzData(f *testing.F) {
	_, _, s := onMini(f, Options{})
	f.Add("a", []byte(`{"x":[1,2,{"y":null}]}`))
	f.Add("", []byte(`"1:a"`))
	f.Add("3:é", []byte(" 1.0\n"))
	f.Add("\x00", []byte(`null`))
	f.Add("n", []byte(`null`))
	f.Fuzz(func(t *testing.T, name string, value []byte) {
		d := data{name: value, "o" + name: json.RawMessage(`[0]`)}
		_, session, err := s.Create(t.Context(), "42", d)
		if err != nil {
			wantErr(t, "create", err, ErrData)
			return
		}
		if isNull(value) {
			delete(d, name)
		}
		if !maps.EqualFunc(session.Data, d, func(a, b json.RawMessage) bool { return bytes.Equal(a, b) }) {
			t.Errorf("%q became %q", d, session.Data)
		}
		if err := s.Revoke(t.Context(), session.Handle); err != nil {
			t.Error(err)
		}
	})
}
