package auth

import (
	"fmt"
	"strings"
	"sync"
	"testing"
)

func TestParseAPIKeysRefuses(t *testing.T) {
	const secret = "topsecrettopsecret"
	for _, row := range []struct{ name, text, want string }{
		{"no colon", secret, "API key 1: must have the form"},
		{"no name", ":" + secret, "API key 1: its name must be"},
		{"name with a space", "my key:" + secret, "API key 1: its name must be"},
		{"name with a slash", secret + "/:" + secret, "API key 1: its name must be"},
		{"name with a newline", "a\nb:" + secret, "API key 1: its name must be"},
		{"name too long", strings.Repeat("n", 65) + ":" + secret, "API key 1: its name must be"},
		{"name not ASCII", "ä:" + secret, "API key 1: its name must be"},
		{"second entry empty", "a:" + secret + ",,b:" + secret, "API key 2: must have the form"},
		{"trailing comma", "a:" + secret + ",", "API key 2: must have the form"},
		{"no secret", "a:", `API key "a": its secret must be`},
		{"secret of 15 bytes", "a:" + secret[:15], `API key "a": its secret must be`},
		{"no secret but scopes", "a::publish", `API key "a": its secret must be`},
		{"secret too long", "a:" + strings.Repeat("s", 1025), `API key "a": its secret must be`},
		{"secret with a space", "a:topsecret topsecret", `API key "a": its secret must be`},
		{"secret with a newline", "a:topsecret\ntopsecret", `API key "a": its secret must be`},
		{"secret not ASCII", "a:topsecrettopsecrét", `API key "a": its secret must be`},
		{"empty scopes", "a:" + secret + ":", `API key "a": its scopes must be`},
		{"unknown scope", "a:" + secret + ":publish+admin", `API key "a": its scopes must be`},
		{"scope in another case", "a:" + secret + ":Publish", `API key "a": its scopes must be`},
		{"scope with a space", "a:" + secret + ":publish +sessions", `API key "a": its scopes must be`},
		{"trailing plus", "a:" + secret + ":publish+", `API key "a": its scopes must be`},
		{"secret with a colon", "a:aaaaaaaaaaaaaaaa:" + secret, `API key "a": its scopes must be`},
		{"four fields", "a:" + secret + ":publish:sessions", `API key "a": its scopes must be`},
		{"name twice", "a:" + secret + ",a:" + secret + "2", `API key "a": its name is used twice`},
		{"secret twice", "a:" + secret + ",b:" + secret + ":publish", `API key "b": it has the same secret as "a"`},
	} {
		t.Run(row.name, func(t *testing.T) {
			keys, err := ParseAPIKeys(row.text)
			if err == nil || !strings.HasPrefix(err.Error(), row.want) || keys != nil {
				t.Fatalf("error %v, want %s", err, row.want)
			}
			if strings.Contains(err.Error(), "topsecret") {
				t.Errorf("the error repeats the secret: %v", err)
			}
		})
	}
}

func TestAPIKeysLookup(t *testing.T) {
	keys, err := ParseAPIKeys(" billing:aaaaaaaaaaaaaaaa , shop.2_x-Y:bbbb!\"bbbb=bbbb~:publish+presence,z:cccccccccccccccc:sessions+sessions")
	if err != nil || keys.Len() != 3 {
		t.Fatal(keys, err)
	}
	for _, row := range []struct {
		secret, name string
		scopes       Scopes
	}{
		{"aaaaaaaaaaaaaaaa", "billing", ScopesAll},
		{"bbbb!\"bbbb=bbbb~", "shop.2_x-Y", ScopePublish | ScopePresence},
		{"cccccccccccccccc", "z", ScopeSessions},
	} {
		p, ok := keys.Lookup(row.secret)
		if want := (Principal{Name: row.name, Method: MethodAPIKey, Scopes: row.scopes}); !ok || p != want {
			t.Errorf("%s: %+v, want %+v", row.secret, p, want)
		}
	}
	for _, secret := range []string{"", "a", "aaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaaaa", "AAAAAAAAAAAAAAAA", "billing", "billing:aaaaaaaaaaaaaaaa"} {
		if p, ok := keys.Lookup(secret); ok || p != (Principal{}) {
			t.Errorf("%q is %+v", secret, p)
		}
	}
}

func TestEmptyAPIKeysAcceptNoSecret(t *testing.T) {
	keys, err := ParseAPIKeys("  ")
	if err != nil || keys.Len() != 0 {
		t.Fatal(keys, err)
	}
	for _, keys := range []*APIKeys{keys, {}} {
		if _, ok := keys.Lookup(""); ok {
			t.Error("the empty secret was accepted")
		}
	}
}

func TestLookupConcurrently(t *testing.T) {
	keys, err := ParseAPIKeys("a:aaaaaaaaaaaaaaaa,b:bbbbbbbbbbbbbbbb")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			name := []string{"a", "b"}[i%2]
			for range 200 {
				if p, ok := keys.Lookup(strings.Repeat(name, 16)); !ok || p.Name != name {
					t.Errorf("found %+v", p)
				}
			}
		})
	}
	wg.Wait()
}

func TestScopes(t *testing.T) {
	p := Principal{Scopes: ScopePublish | ScopePresence}
	for scope, want := range map[Scopes]bool{
		ScopePublish: true, ScopePresence: true, ScopePublish | ScopePresence: true,
		ScopeSessions: false, ScopesAll: false, 0: false,
	} {
		if p.Has(scope) != want {
			t.Errorf("Has(%q) = %v, want %v", scope, !want, want)
		}
	}
	if s := ScopesAll.String(); s != "publish sessions presence" {
		t.Errorf("all scopes are %q", s)
	}
}

func FuzzParseAPIKeys(f *testing.F) {
	f.Add("billing:aaaaaaaaaaaaaaaa:publish+sessions,b:bbbbbbbbbbbbbbbb")
	f.Add("a::,")
	f.Fuzz(func(t *testing.T, text string) {
		keys, err := ParseAPIKeys(text)
		if err != nil {
			if keys != nil || strings.ContainsAny(err.Error(), "\n\r") {
				t.Fatalf("keys %v, error %q", keys, err)
			}
			return
		}
		for i, entry := range splitList(text) {
			p, ok := keys.Lookup(strings.Split(entry, ":")[1])
			if !ok || p.Name != keys.keys[i].name || p.Scopes == 0 || p.UserID != "" {
				t.Fatalf("entry %d of %q is %+v", i, text, p)
			}
		}
	})
}

func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{1, 10, 100} {
		var entries []string
		for i := range n {
			entries = append(entries, fmt.Sprintf("key%d:%s%04d", i, secretA, i))
		}
		keys, err := ParseAPIKeys(strings.Join(entries, ","))
		if err != nil {
			b.Fatal(err)
		}
		secret := fmt.Sprintf("%s%04d", secretA, n/2)
		b.Run(fmt.Sprintf("%d keys", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, ok := keys.Lookup(secret); !ok {
					b.Fatal("not found")
				}
			}
		})
	}
}
