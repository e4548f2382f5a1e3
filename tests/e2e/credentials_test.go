package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"herald/internal/testing/gatewaytest"
)

// upgrading is the header of a WebSocket handshake.
var upgrading = []string{
	"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
	"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==",
}

// secondKey is a second key for tokens. With two keys a token without kid is refused.
const secondKey = "k2=HS256:abcdef0123456789abcdef0123456789"

func TestTokensThatProveNothingAre401(t *testing.T) {
	g, _ := node(t, "HERALD_JWT_KEYS=k1=HS256:"+gatewaytest.JWTSecret+","+secondKey)
	type claims = gatewaytest.Claims
	hs := claims{"alg": "HS256", "kid": "k1"}
	hour := time.Now().Add(time.Hour).Unix()
	good := claims{"sub": "alice", "exp": hour}
	sign := func(header, c claims) string { return gatewaytest.SignToken(header, c, gatewaytest.JWTSecret) }
	whole := sign(hs, good)
	unsigned := sign(claims{"alg": "none", "kid": "k1"}, good)
	tokens := map[string]string{
		"alg none":                unsigned,
		"alg none, no signature":  unsigned[:strings.LastIndexByte(unsigned, '.')+1],
		"alg NONE":                sign(claims{"alg": "NONE", "kid": "k1"}, good),
		"another alg":             sign(claims{"alg": "HS512", "kid": "k1"}, good),
		"an asymmetric alg":       sign(claims{"alg": "RS256", "kid": "k1"}, good),
		"no alg":                  sign(claims{"kid": "k1"}, good),
		"foreign kid":             sign(claims{"alg": "HS256", "kid": "k9"}, good),
		"kid of another key":      sign(claims{"alg": "HS256", "kid": "k2"}, good),
		"no kid with two keys":    sign(claims{"alg": "HS256"}, good),
		"kid that is no text":     sign(claims{"alg": "HS256", "kid": 1}, good),
		"crit":                    sign(claims{"alg": "HS256", "kid": "k1", "crit": []string{"x"}, "x": 1}, good),
		"signed with another key": gatewaytest.SignToken(hs, good, "another secret of 32 bytes or more"),
		"signed with nothing":     gatewaytest.SignToken(hs, good, ""),
		"expired":                 sign(hs, claims{"sub": "alice", "exp": time.Now().Add(-time.Minute).Unix()}),
		"no exp":                  sign(hs, claims{"sub": "alice"}),
		"exp null":                sign(hs, claims{"sub": "alice", "exp": nil}),
		"exp as text":             sign(hs, claims{"sub": "alice", "exp": fmt.Sprint(hour)}),
		"exp in another case":     sign(hs, claims{"sub": "alice", "EXP": hour}),
		"not yet valid":           sign(hs, claims{"sub": "alice", "exp": hour, "nbf": hour - 60}),
		"no sub":                  sign(hs, claims{"exp": hour}),
		"empty sub":               sign(hs, claims{"sub": "", "exp": hour}),
		"sub in another case":     sign(hs, claims{"SUB": "alice", "exp": hour}),
		"sub that is a number":    sign(hs, claims{"sub": 42, "exp": hour}),
		"changed":                 whole[:len(whole)-2] + "AA",
		"signature cut off":       whole[:strings.LastIndexByte(whole, '.')],
		"four parts":              whole + ".AAAA",
		"not a token":             "abc",
		"an API key":              gatewaytest.Key,
	}
	for name, token := range tokens {
		t.Run(name, func(t *testing.T) {
			g := g.For(t)
			for place, request := range tokenPlaces(token) {
				a := g.Do("GET", request.path, "", request.header...)
				checkProblem(t, a, http.StatusUnauthorized)
				checkChallenge(t, place, a)
				if strings.Contains(a.Body, token) {
					t.Errorf("%s: the answer repeats the token: %s", place, a.Body)
				}
			}
		})
	}
	t.Run("good", func(t *testing.T) {
		g := g.For(t)
		for place, request := range tokenPlaces(whole) {
			if a := g.Do("GET", request.path, "", request.header...); a.Status != http.StatusSwitchingProtocols {
				t.Errorf("%s: %d %s", place, a.Status, a.Body)
			} else if p := a.Header.Get("Sec-WebSocket-Protocol"); strings.Contains(p, "bearer") {
				t.Errorf("%s: the answer selects %q", place, p)
			}
		}
	})
	for _, text := range []string{"/ws?token=" + whole + "%0A", "/ws?token=" + whole + "%20", "/ws?token=", "/ws?token=" + whole + "&token=" + whole + "x"} {
		checkProblem(t, g.Do("GET", text, "", upgrading...), http.StatusUnauthorized)
	}
}

type tokenRequest struct {
	path   string
	header []string
}

// tokenPlaces returns handshakes with the token in each place that the contract allows.
func tokenPlaces(token string) map[string]tokenRequest {
	with := func(lines ...string) []string { return append(lines, upgrading...) }
	return map[string]tokenRequest{
		"Authorization": {"/ws", with("Authorization: Bearer " + token)},
		"query":         {"/ws?token=" + token, upgrading},
		"subprotocol":   {"/ws", with("Sec-WebSocket-Protocol: herald.v1, bearer." + token)},
	}
}

func checkChallenge(t *testing.T, what string, a gatewaytest.Answer) {
	t.Helper()
	if challenge := a.Header.Get("WWW-Authenticate"); !strings.HasPrefix(challenge, "Bearer") {
		t.Errorf("%s: 401 with WWW-Authenticate %q, want a Bearer challenge", what, challenge)
	}
}

// TestWhoMayConnect runs every check of a handshake with an upgrade and with a plain GET
// of /ws. Only their success differs: 101 and 426.
func TestWhoMayConnect(t *testing.T) {
	g, _ := node(t)
	alice, bob := g.CreateSession("alice"), g.CreateSession("bob")
	token := bearer("alice")
	foreign := "Origin: https://evil.example"
	own := g.Origin()
	table := []struct {
		name   string
		path   string
		header []string
		want   int // 101: let in
	}{
		{"token", "/ws", []string{token}, 101},
		{"token and own Origin", "/ws", []string{token, own}, 101},
		{"token and since", "/ws?since=0", []string{token}, 101},
		{"cookie and own Origin", "/ws", []string{alice.Cookie(), own}, 101},
		{"cookie among others", "/ws", []string{"Cookie: a=b; sid=" + alice.SessionID + "; c=d", own}, 101},
		{"token and cookie of one user", "/ws", []string{token, alice.Cookie(), own}, 101},
		{"scheme in lower case", "/ws", []string{strings.Replace(token, "Bearer", "bearer", 1)}, 101},

		{"nothing", "/ws", nil, 401},
		{"nothing, foreign Origin", "/ws", []string{foreign}, 401},
		{"unknown session", "/ws", []string{"Cookie: sid=" + strings.Repeat("0", 64), own}, 401},
		{"handle as session", "/ws", []string{"Cookie: sid=" + alice.Handle, own}, 401},
		{"empty session", "/ws", []string{"Cookie: sid=", own}, 401},
		{"session in upper case", "/ws", []string{"Cookie: sid=" + strings.ToUpper(alice.SessionID), own}, 401},
		{"cookie of another name", "/ws", []string{"Cookie: SID=" + alice.SessionID, own}, 401},
		{"API key", "/ws", []string{gatewaytest.BearerKey}, 401},
		{"basic", "/ws", []string{"Authorization: Basic YWxpY2U6eA=="}, 401},
		{"user id in the query", "/ws?userId=alice&user=alice", nil, 401},
		{"bad token beside good cookie", "/ws", []string{"Authorization: Bearer x.y.z", alice.Cookie(), own}, 401},

		{"token, foreign Origin", "/ws", []string{token, foreign}, 403},
		{"cookie, foreign Origin", "/ws", []string{alice.Cookie(), foreign}, 403},
		{"cookie, no Origin", "/ws", []string{alice.Cookie()}, 403},
		{"cookie, Origin null", "/ws", []string{alice.Cookie(), "Origin: null"}, 403},
		{"cookie, https", "/ws", []string{alice.Cookie(), strings.Replace(own, "http:", "https:", 1)}, 403},
		{"cookie, another port", "/ws", []string{alice.Cookie(), "Origin: http://127.0.0.1:1"}, 403},
		{"cookie, no port", "/ws", []string{alice.Cookie(), "Origin: http://127.0.0.1"}, 403},
		{"cookie, own host as prefix", "/ws", []string{alice.Cookie(), own + ".evil.example"}, 403},
		{"cookie, user name", "/ws", []string{alice.Cookie(), strings.Replace(own, "://", "://x@", 1)}, 403},
		{"cookie, extension", "/ws", []string{alice.Cookie(), strings.Replace(own, "http:", "chrome-extension:", 1)}, 403},
		{"cookie, trailing slash", "/ws", []string{alice.Cookie(), own + "/"}, 403},

		{"two Origins", "/ws", []string{alice.Cookie(), own, foreign}, 400},
		{"two equal Origins", "/ws", []string{alice.Cookie(), own, own}, 400},
		{"token and cookie of two users", "/ws", []string{token, bob.Cookie(), own}, 400},
		{"tokens of two users", "/ws?token=" + gatewaytest.UserToken("bob"), []string{token}, 400},
		{"cookie and query of two users", "/ws?token=" + gatewaytest.UserToken("bob"), []string{alice.Cookie(), own}, 400},
		{"subprotocol of another user", "/ws", []string{token, "Sec-WebSocket-Protocol: herald.v1, bearer." + gatewaytest.UserToken("bob")}, 400},
		{"since is no number", "/ws?since=x", []string{token}, 400},
		{"since is negative", "/ws?since=-1", []string{token}, 400},
		{"since is above 2^53", "/ws?since=9007199254740993", []string{token}, 400},
		{"since is a fraction", "/ws?since=1.0", []string{token}, 400},
	}
	for _, row := range table {
		t.Run(row.name, func(t *testing.T) {
			g := g.For(t)
			tryConnect(t, g, row.path, append(append([]string{}, upgrading...), row.header...), row.want)
			plain := row.want
			if plain == 101 {
				plain = http.StatusUpgradeRequired
			}
			tryConnect(t, g, row.path, row.header, plain)
		})
	}
}

// TestPlainGetFromTheOwnSite: browsers send no Origin with a same-origin GET, so
// Sec-Fetch-Site counts instead.
func TestPlainGetFromTheOwnSite(t *testing.T) {
	g, _ := node(t)
	cookie := g.CreateSession("alice").Cookie()
	own := []string{cookie, "Sec-Fetch-Site: same-origin"}
	tryConnect(t, g, "/ws", own, http.StatusUpgradeRequired)
	tryConnect(t, g, "/ws", slices.Concat(own, upgrading), http.StatusForbidden)
	tryConnect(t, g, "/ws", []string{cookie, "Sec-Fetch-Site: cross-site"}, http.StatusForbidden)
}

func tryConnect(t *testing.T, g *gatewaytest.Gateway, path string, header []string, want int) {
	t.Helper()
	a := g.Do("GET", path, "", header...)
	if want == http.StatusSwitchingProtocols {
		if a.Status != want {
			t.Errorf("%d %s, want 101", a.Status, a.Body)
		}
		return
	}
	checkProblem(t, a, want)
	switch want {
	case http.StatusUnauthorized:
		checkChallenge(t, path, a)
	case http.StatusUpgradeRequired:
		if !strings.EqualFold(a.Header.Get("Upgrade"), "websocket") {
			t.Errorf("426 with Upgrade %q (RFC 9110, 15.5.22)", a.Header.Get("Upgrade"))
		}
	}
}

func TestAllowedOriginsAreExactlyTheList(t *testing.T) {
	g, _ := node(t, "HERALD_ALLOWED_ORIGINS=https://app.example.com,http://other.example:8080")
	session := g.CreateSession("alice")
	for origin, want := range map[string]int{
		"https://app.example.com":      101,
		"https://app.example.com:443":  101,
		"http://other.example:8080":    101,
		"http://app.example.com":       403,
		"https://app.example.com:8443": 403,
		"https://sub.app.example.com":  403,
		"http://other.example":         403,
		g.URL:                          403, // no longer by default
	} {
		t.Run(origin, func(t *testing.T) {
			g := g.For(t)
			tryConnect(t, g, "/ws", append([]string{session.Cookie(), "Origin: " + origin}, upgrading...), want)
		})
	}
}

func TestBackendsNeedTheScope(t *testing.T) {
	g, _ := node(t, "HERALD_API_KEYS=all:"+gatewaytest.Key+",publisher:0123456789abcdef-publish:publish,clerk:0123456789abcdef-sessions:sessions")
	claim := func(scope string) string {
		return gatewaytest.Token(gatewaytest.Claims{"sub": "svc", "exp": time.Now().Add(time.Hour).Unix(), "scope": scope})
	}
	session := g.CreateSession("alice")
	for _, row := range []struct {
		name               string
		header             string
		publishing, listed int
	}{
		{"all", gatewaytest.BearerKey, 200, 200},
		{"publish", "Authorization: Bearer 0123456789abcdef-publish", 200, 403},
		{"sessions", "Authorization: Bearer 0123456789abcdef-sessions", 403, 200},
		{"token with publish", "Authorization: Bearer " + claim("publish"), 200, 403},
		{"token with both", "Authorization: Bearer " + claim("publish sessions"), 200, 200},
		{"a user's token", bearer("alice"), 403, 403},
		{"token with another word", "Authorization: Bearer " + claim("republish publishing"), 403, 403},
		{"nothing", "Accept: */*", 401, 401},
		{"a name as key", "Authorization: Bearer publisher", 401, 401},
		{"half a key", "Authorization: Bearer " + gatewaytest.Key[:16], 401, 401},
		{"a user's session", session.Cookie(), 401, 401},
	} {
		t.Run(row.name, func(t *testing.T) {
			g := g.For(t)
			tryBackend(t, g.Do("POST", "/notify", `{"userId":"alice","message":1}`, row.header, g.Origin()), row.publishing)
			tryBackend(t, g.Do("GET", "/users/alice/sessions", "", row.header, g.Origin()), row.listed)
		})
	}
}

func tryBackend(t *testing.T, a gatewaytest.Answer, want int) {
	t.Helper()
	if want == http.StatusOK {
		if a.Status != want {
			t.Errorf("%d %s, want 200", a.Status, a.Body)
		}
		return
	}
	checkProblem(t, a, want)
	if want == http.StatusUnauthorized {
		checkChallenge(t, "backend", a)
	}
}

// TestBadUserIDs: an id that would change the meaning of a key, a channel pattern or a
// hash slot is refused in every place and never logged.
func TestBadUserIDs(t *testing.T) {
	g, _ := node(t)
	ids := []string{
		"", ":", "alice:x", "*", "a*", "?", "a[bc]", "{alice}", "a b", "alice\n", "\x00", "a\x7f", "a/b", "..%2f",
		"%41", "ä", "🌍", "a,b", "a;b", "a\\b", "a'b", "a\"b", "a=b", "a+b", "a#b", "a&b", strings.Repeat("x", 129), "canary-\x01-marker",
	}
	for _, id := range ids {
		t.Run(fmt.Sprintf("%.20q", id), func(t *testing.T) {
			g := g.For(t)
			quoted := quote(id)
			for _, request := range [][3]string{
				{"POST", "/notify", `{"userId":` + quoted + `,"message":1}`},
				{"POST", "/notify", `{"userIds":["bob",` + quoted + `],"message":1}`},
				{"POST", "/sessions", `{"userId":` + quoted + `}`},
			} {
				checkProblem(t, g.Backend(request[0], request[1], request[2]), http.StatusBadRequest)
			}
			if id != "" {
				checkProblem(t, g.Backend("GET", "/users/"+escapeAll(id)+"/sessions", ""), http.StatusBadRequest)
				checkProblem(t, g.Backend("DELETE", "/users/"+escapeAll(id)+"/sessions", ""), http.StatusBadRequest)
			}
			checkBatchItemRefused(t, g, quoted)
			if a := g.Do("GET", "/ws", "", append([]string{bearer(id)}, upgrading...)...); a.Status != 400 && a.Status != 401 {
				t.Errorf("token: %d %s", a.Status, a.Body)
			}
		})
	}
	for _, path := range []string{"/users/%zz/sessions", "/users/%4/sessions", "/users/%/sessions", "/users/a:b/sessions", "/users/*/sessions"} {
		request := "GET " + path + " HTTP/1.1\r\nHost: x\r\n" + gatewaytest.BearerKey + "\r\nConnection: close\r\n\r\n"
		checkProblem(t, converse(t, g, request).only(t), http.StatusBadRequest)
	}
	for _, id := range []string{"a", "A-Z_.09@x", strings.Repeat("x", 128), ".", "..", "-"} {
		if a := g.Backend("POST", "/notify", `{"userId":"`+id+`","message":1}`); a.Status != 200 {
			t.Errorf("%q: %d %s", id, a.Status, a.Body)
		}
	}
	if log := g.Log(); strings.Contains(log, "canary-") {
		t.Errorf("a refused user id is in the log:\n%s", log)
	}
}

func quote(s string) string {
	var b bytes.Buffer
	b.WriteByte('"')
	for _, r := range s {
		fmt.Fprintf(&b, `\u%04x`, r&0xffff)
	}
	b.WriteByte('"')
	if strings.ContainsAny(s, "🌍") {
		return `"🌍"`
	}
	return b.String()
}

func escapeAll(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return b.String()
}

func checkBatchItemRefused(t *testing.T, g *gatewaytest.Gateway, quotedID string) {
	t.Helper()
	a := g.Backend("POST", "/notify/batch", `{"notifications":[{"userId":`+quotedID+`,"message":1}]}`)
	var answer struct{ Results []gatewaytest.Receipt }
	if a.Status == http.StatusBadRequest {
		return
	}
	if a.Decode(t, &answer); a.Status != 200 || len(answer.Results) != 1 || answer.Results[0].OK || answer.Results[0].Error == "" {
		t.Errorf("batch: %d %s", a.Status, a.Body)
	}
}
