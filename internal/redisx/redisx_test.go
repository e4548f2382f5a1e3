package redisx

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestEscapeKeepsIdsApart(t *testing.T) {
	for text, want := range map[string]string{
		"42": "42", "ana+test@x.y": "ana%2Btest@x.y", "auth0|5f": "auth0%7C5f", "%7C": "%257C", "李": "%E6%9D%8E", "": "",
	} {
		if got := Escape(text); got != want {
			t.Errorf("Escape(%q) = %q, want %q", text, got, want)
		}
	}
}

func FuzzEscapeIsSafeInKeys(f *testing.F) {
	f.Add("a:b", "a%3Ab")
	f.Add("{x}", "*")
	f.Fuzz(func(t *testing.T, a, b string) {
		if strings.ContainsAny(Escape(a), ":*?[]{}\\ \x00") {
			t.Errorf("Escape(%q) = %q", a, Escape(a))
		}
		if a != b && Escape(a) == Escape(b) {
			t.Errorf("%q and %q are both %q", a, b, Escape(a))
		}
	})
}

func TestUserKeyIsCutAgain(t *testing.T) {
	key := UserKey("a|b", "log")
	if key != "user:{a%7Cb}:log" {
		t.Errorf("UserKey = %q", key)
	}
	if id, name, ok := CutUserKey(key); !ok || id != "a%7Cb" || name != "log" {
		t.Errorf("CutUserKey = %q, %q, %t", id, name, ok)
	}
	for _, other := range []string{"session:x", "user:{x", "user:x:events"} {
		if _, _, ok := CutUserKey(other); ok {
			t.Errorf("CutUserKey takes %q", other)
		}
	}
}

func TestThrottleAdmitsOneASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var th Throttle
		if !th.Allow() || th.Allow() {
			t.Error("not exactly the first is admitted")
		}
		time.Sleep(time.Second)
		if !th.Allow() {
			t.Error("nothing is admitted after a second")
		}
	})
}
