package auth

import (
	"errors"
	"net/url"
	"strings"
	"testing"
)

func TestParseOriginsRefuses(t *testing.T) {
	for _, text := range []string{
		"*", "null", "app.example.com", "//app.example.com", "https://", "https://*", "https://*.example.com",
		"https://app.example.com/", "https://app.example.com/path", "https://app.example.com?q", "https://app.example.com#f",
		"https://user@app.example.com", "https://user:pass@app.example.com", "ws://app.example.com", "wss://app.example.com",
		"ftp://app.example.com", "chrome-extension://abcdef", "file://", "https:app.example.com", "https:/app.example.com",
		"https://app.example.com:", "https://app.example.com:0", "https://app.example.com:65536", "https://app.example.com:-1",
		"https://app.example.com:+443", "https://app.example.com:0443", "https://app.example.com:443:443", "https://app.example.com:https",
		"https://app example.com", "https://app.example.com\n", "https://äpp.example.com", "https://app.example.com%2f",
		"https://[::1", "https://::1", "https://[::1]x", "https://[127.0.0.1]", "https://[fe80::1%25eth0]", "https://[fe80::1%eth0]", "https://[]",
		"https://a.example https://b.example", "https://a.example,", ",", "https://a.example,,https://b.example",
	} {
		// ParseOrigins trims space around an entry, also a newline, so put it inside.
		if strings.HasSuffix(text, "\n") {
			text += "x"
		}
		if _, err := ParseOrigins(text); err == nil || !strings.HasPrefix(err.Error(), "origin ") {
			t.Errorf("%q: error %v", text, err)
		} else if strings.Contains(err.Error(), "pass") {
			t.Errorf("%q: the error contains the password", text)
		}
	}
}

func TestOriginsCheck(t *testing.T) {
	const self, list = "http://own.example:3000", "https://app.example.com, http://Localhost:8080,https://[2001:DB8:0::1]:8443,http://p.example:80"
	one := func(s string) []string { return []string{s} }
	for _, row := range []struct {
		name, list, self string
		origin           []string
		want             error
	}{
		{"none", "", self, nil, errNoOrigin},
		{"none, with a list", list, self, nil, errNoOrigin},
		{"two", "", self, []string{self, "https://evil.example"}, errTwoOrigins},
		{"two equal ones", "", self, []string{self, self}, errTwoOrigins},
		{"two, with a list", list, self, []string{"https://app.example.com", "https://evil.example"}, errTwoOrigins},
		{"empty", "", self, one(""), errOrigin},
		{"null", "", self, one("null"), errOrigin},
		{"null, with a list", list, self, one("null"), errOrigin},
		{"two in one", "", self, one(self + " https://evil.example"), errOrigin},
		{"two in one with comma", "", self, one(self + ", https://evil.example"), errOrigin},

		{"own", "", self, one(self), nil},
		{"own, host in another case", "", self, one("HTTP://Own.Example:3000"), nil},
		{"own, https", "", self, one("https://own.example:3000"), errOrigin},
		{"own, another port", "", self, one("http://own.example:3001"), errOrigin},
		{"own, no port", "", self, one("http://own.example"), errOrigin},
		{"own, default port there", "", "https://own.example:443", one("https://own.example"), nil},
		{"own, default port here", "", "https://own.example", one("https://own.example:443"), nil},
		{"own, the other scheme's default port", "", "http://own.example", one("http://own.example:443"), errOrigin},
		{"subdomain", "", self, one("http://a.own.example:3000"), errOrigin},
		{"superdomain", "", self, one("http://example:3000"), errOrigin},
		{"suffix", "", self, one("http://evilown.example:3000"), errOrigin},
		{"prefix", "", self, one("http://own.example:3000.evil.example"), errOrigin},
		{"own as user name", "", self, one("http://own.example:3000@evil.example"), errOrigin},
		{"own with a slash", "", self, one(self + "/"), errOrigin},
		{"own with a trailing dot", "", self, one("http://own.example.:3000"), errOrigin},
		{"own with a newline", "", self, one(self + "\n"), errOrigin},
		{"own with space before", "", self, one(" " + self), errOrigin},
		{"extension", "", self, one("chrome-extension://own.example:3000"), errOrigin},
		{"self unreadable", "", "http://own example", one("http://own example"), errOrigin},
		{"self empty", "", "", one(""), errOrigin},
		{"self is null", "", "null", one("null"), errOrigin},

		{"listed", list, self, one("https://app.example.com"), nil},
		{"listed, port spelled out", list, self, one("https://app.example.com:443"), nil},
		{"listed with a default port", list, self, one("http://p.example"), nil},
		{"listed second", list, self, one("http://localhost:8080"), nil},
		{"listed IPv6", list, self, one("https://[2001:db8::1]:8443"), nil},
		{"listed, another scheme", list, self, one("http://app.example.com"), errOrigin},
		{"listed, another port", list, self, one("https://app.example.com:8443"), errOrigin},
		{"own is not listed", list, self, one(self), errOrigin},
		{"neither", list, self, one("https://evil.example"), errOrigin},
	} {
		t.Run(row.name, func(t *testing.T) {
			origins, err := ParseOrigins(row.list)
			if err != nil {
				t.Fatal(err)
			}
			if err := origins.Check(row.origin, row.self); err != row.want {
				t.Errorf("error %v, want %v", err, row.want)
			}
		})
	}
}

func TestOriginsAdmit(t *testing.T) {
	const self, evil = "https://own.example", "https://evil.example"
	type S = Source
	site := func(values ...string) Source { return Source{FetchSite: values, Self: self} }
	from := func(origins ...string) Source { return Source{Origin: origins, Self: self} }
	for _, row := range []struct {
		name   string
		method Method
		rule   OriginRule
		source S
		want   error
	}{
		{"cookie, WebSocket, own", MethodSession, OriginRequired, from(self), nil},
		{"cookie, WebSocket, none", MethodSession, OriginRequired, from(), errNoOrigin},
		{"cookie, WebSocket, same-origin is not enough", MethodSession, OriginRequired, site("same-origin"), errNoOrigin},
		{"cookie, WebSocket, evil", MethodSession, OriginRequired, from(evil), errOrigin},
		{"cookie, WebSocket, two", MethodSession, OriginRequired, from(self, self), errTwoOrigins},
		{"cookie, SSE, own", MethodSession, OriginOrSameOrigin, from(self), nil},
		{"cookie, SSE, neither", MethodSession, OriginOrSameOrigin, from(), errNoOrigin},
		{"cookie, SSE, same-origin", MethodSession, OriginOrSameOrigin, site("same-origin"), nil},
		{"cookie, SSE, same-site", MethodSession, OriginOrSameOrigin, site("same-site"), errNoOrigin},
		{"cookie, SSE, cross-site", MethodSession, OriginOrSameOrigin, site("cross-site"), errNoOrigin},
		{"cookie, SSE, typed address", MethodSession, OriginOrSameOrigin, site("none"), errNoOrigin},
		{"cookie, SSE, another case", MethodSession, OriginOrSameOrigin, site("Same-Origin"), errNoOrigin},
		{"cookie, SSE, twice", MethodSession, OriginOrSameOrigin, site("same-origin", "cross-site"), errNoOrigin},
		{"cookie, SSE, evil says same-origin", MethodSession, OriginOrSameOrigin,
			S{Origin: []string{evil}, FetchSite: []string{"same-origin"}, Self: self}, errOrigin},
		{"cookie, reading, none", MethodSession, OriginOptional, from(), nil},
		{"cookie, reading, evil", MethodSession, OriginOptional, from(evil), errOrigin},
		{"token, none", MethodJWT, OriginRequired, from(), nil},
		{"token, own", MethodJWT, OriginRequired, from(self), nil},
		{"token, evil", MethodJWT, OriginRequired, from(evil), errOrigin},
		{"token, null", MethodJWT, OriginRequired, from("null"), errOrigin},
		{"token, two", MethodJWT, OriginOrSameOrigin, from(self, evil), errTwoOrigins},
		{"API key, none", MethodAPIKey, OriginRequired, from(), nil},
	} {
		if err := (Origins{}).Admit(row.method, row.rule, row.source); err != row.want {
			t.Errorf("%s: error %v, want %v", row.name, err, row.want)
		}
	}
}

func FuzzOrigin(f *testing.F) {
	f.Add("https://app.example.com", "https://app.example.com:443")
	f.Add("http://[::1]:3000", "http://[0::1]:3000")
	f.Add("https://own.example@evil.example", "https://own.example")
	f.Fuzz(func(t *testing.T, origin, self string) {
		canonical, err := canonicalOrigin(origin)
		accepted := Origins{}.Check([]string{origin}, self)
		if err != nil {
			if !errors.Is(accepted, ErrOrigin) {
				t.Fatalf("%q is not an origin, but Check returns %v", origin, accepted)
			}
			return
		}
		if again, err := canonicalOrigin(canonical); err != nil || again != canonical {
			t.Fatalf("%q, then %q, %v", canonical, again, err)
		}
		u, err := url.Parse(origin)
		if err != nil || u.Path != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.User != nil || u.Host == "" {
			t.Fatalf("net/url does not parse %q as an origin: %#v, %v", origin, u, err)
		}
		own, err := canonicalOrigin(self)
		if (accepted == nil) != (err == nil && own == canonical) {
			t.Fatalf("%q from %q: %v", origin, self, accepted)
		}
	})
}

func FuzzParseOrigins(f *testing.F) {
	f.Add("https://app.example.com, http://localhost:8080")
	f.Add("https://*.example.com")
	f.Fuzz(func(t *testing.T, text string) {
		origins, err := ParseOrigins(text)
		if err != nil {
			return
		}
		for _, entry := range splitList(text) {
			if err := origins.Check([]string{entry}, "http://own.example"); err != nil {
				t.Fatalf("%q of %q: %v", entry, text, err)
			}
		}
	})
}
