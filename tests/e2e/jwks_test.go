package e2e

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"herald/internal/testing/gatewaytest"
)

// issuer signs tokens with keys that it publishes.
type issuer struct{ keys map[string]ed25519.PrivateKey }

func newIssuer() *issuer { return &issuer{map[string]ed25519.PrivateKey{}} }

// jwk creates a key and returns its public JWK.
func (i *issuer) jwk(kid, more string) string {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		panic(err) // the system has no random numbers
	}
	i.keys[kid] = private
	return `{"kty":"OKP","crv":"Ed25519","kid":"` + kid + `","x":"` + base64.RawURLEncoding.EncodeToString(public) + `"` + more + `}`
}

func (i *issuer) bearer(kid string) string {
	part := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			panic(err) // a test's own mistake
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	text := part(map[string]string{"alg": "EdDSA", "kid": kid}) + "." +
		part(map[string]any{"sub": "alice", "exp": time.Now().Add(time.Hour).Unix(), "scope": "publish"})
	return "Authorization: Bearer " + text + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(i.keys[kid], []byte(text)))
}

func keySet(keys ...string) func(http.ResponseWriter) {
	return body(`{"keys":[` + strings.Join(keys, ",") + `]}`)
}

func TestJWKSRotation(t *testing.T) {
	t.Parallel() // mostly waits
	app, keys := startBackend(t), newIssuer()
	first, second := keys.jwk("first", `,"use":"sig","alg":"EdDSA"`), keys.jwk("second", "")
	encryption := keys.jwk("encryption", `,"use":"enc"`)
	symmetric := `{"kty":"oct","kid":"symmetric","k":"` + base64.RawURLEncoding.EncodeToString([]byte(gatewaytest.JWTSecret)) + `"}`
	app.says("/jwks", keySet(encryption, symmetric, first))
	a, b, _ := twoNodes(t, "HERALD_JWKS_URL="+app.URL+"/jwks")
	nodes := []*gatewaytest.Gateway{a, b}
	status := func(g *gatewaytest.Gateway, header string) int { return g.Do("GET", "/inbox", "", header).Status }

	for _, g := range nodes {
		if n := status(g, keys.bearer("first")); n != 200 {
			t.Errorf("the published key: %d", n)
		}
		if n := status(g, bearer("alice")); n != 200 {
			t.Errorf("the configured key: %d", n)
		}
		s, _ := connect(t, g, dialOptions{header: []string{keys.bearer("first")}})
		s.alive(t)
	}
	if n := app.times("/jwks"); n != 1 {
		t.Errorf("two nodes fetched it %d times", n)
	}
	hs256 := gatewaytest.SignToken(gatewaytest.Claims{"alg": "HS256", "kid": "symmetric"},
		gatewaytest.Claims{"sub": "alice", "exp": time.Now().Add(time.Hour).Unix()}, gatewaytest.JWTSecret)
	for _, refused := range []string{keys.bearer("encryption"), keys.bearer("second"), "Authorization: Bearer " + hs256} {
		for range 20 {
			if n := status(a, refused); n != 401 {
				t.Errorf("%d for a key that is not published for this", n)
			}
		}
	}
	if n := app.times("/jwks"); n > 3 { // one every 10 s
		t.Errorf("unknown key ids had it fetched %d times", n)
	}

	app.says("/jwks", keySet(second))
	for _, g := range nodes {
		for deadline := time.Now().Add(2 * patience); status(g, keys.bearer("second")) != 200; time.Sleep(100 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the new key is not accepted")
			}
		}
		if n := status(g, keys.bearer("first")); n != 401 {
			t.Errorf("the withdrawn key: %d", n)
		}
	}
}

// An issuer that cannot be reached causes 503, not 401.
func TestJWKSThatCannotBeHad(t *testing.T) {
	app, keys := startBackend(t), newIssuer()
	key := keys.jwk("k", "")
	app.says("/jwks", body(`<html>`))
	g, _ := node(t, "HERALD_JWKS_URL="+app.URL+"/jwks")
	checkProblem(t, g.Do("GET", "/inbox", "", keys.bearer("k")), 503)
	checkProblem(t, g.Do("POST", "/notify", `{"userId":"a","message":1}`, keys.bearer("k")), 503)
	g.Publish("alice", "1")
	if a := g.Do("GET", "/inbox", "", bearer("alice")); a.Status != 200 {
		t.Errorf("the configured key: %d", a.Status)
	}
	app.says("/jwks", keySet(key))
	for deadline := time.Now().Add(patience); g.Do("GET", "/inbox", "", keys.bearer("k")).Status != 200; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the key is not accepted")
		}
	}
	app.Close()
	if a := g.Do("GET", "/inbox", "", keys.bearer("k")); a.Status != 200 {
		t.Errorf("a known key while its issuer is away: %d", a.Status)
	}
}
