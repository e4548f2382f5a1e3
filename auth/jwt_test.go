package auth

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Each token would be accepted for user 42 without the one fault in its name.
func TestVerifyRefuses(t *testing.T) {
	const header = `{"alg":"HS256","typ":"JWT","kid":"a"}`
	k := asymmetric()
	good := hs256(t, claimsOf("42"))
	sign := func(header, claims string) string {
		return mint(t, jwt.SigningMethodHS256, []byte(secretA), header, claims)
	}
	claims := func(format string, args ...any) string { return hs256(t, fmt.Sprintf(format, args...)) }
	later, at := now.Unix()+3600, now.Unix()
	unsigned := func(header string) string { return segment(header) + "." + segment(claimsOf("42")) + "." }
	rsaPublic := keyFiles(t)["rsa.pem"]

	for _, row := range []struct {
		name, keys, token string
		want              error
	}{
		// Structure.
		{"empty", "", "", errNotAToken},
		{"two segments", "", strings.TrimRight(good[:strings.LastIndex(good, ".")], "."), errNotAToken},
		{"four segments", "", good + ".", errNotAToken},
		{"five segments (JWE)", "", "a.b.c.d.e", errNotAToken},
		{"trailing newline", "", good + "\n", errNotAToken},
		{"leading newline", "", "\n" + good, errNotAToken},
		{"newline inside", "", good[:10] + "\n" + good[10:], errNotAToken},
		{"carriage return inside", "", strings.Replace(good, ".", "\r.", 1), errNotAToken},
		{"trailing space", "", good + " ", errNotAToken},
		{"padding", "", good + "=", errNotAToken},
		{"standard base64", "", strings.Replace(good, ".", "+/.", 1), errNotAToken},
		{"NUL", "", good + "\x00", errNotAToken},
		{"other spelling of the last byte", "", respell(t, good), errNotAToken},
		{"huge", "", hs256(t, claimsOf("42", `"x":"`+strings.Repeat("x", 8192)+`"`)), errTokenSize},

		// Header.
		{"none", "", unsigned(`{"alg":"none","kid":"a"}`), errAlgorithm},
		{"None", "", unsigned(`{"alg":"None","kid":"a"}`), errAlgorithm},
		{"none without kid", "", unsigned(`{"alg":"none"}`), errAlgorithm},
		{"none, signature kept", "", sign(`{"alg":"none","kid":"a"}`, claimsOf("42")), errAlgorithm},
		{"signature cut off", "", unsigned(header), errSignature},
		{"no alg", "", sign(`{"kid":"a"}`, claimsOf("42")), errAlgorithm},
		{"empty alg", "", sign(`{"kid":"a","alg":""}`, claimsOf("42")), errAlgorithm},
		{"alg not a string", "", sign(`{"kid":"a","alg":["HS256"]}`, claimsOf("42")), errAlgorithm},
		{"alg in lower case", "", sign(`{"kid":"a","alg":"hs256"}`, claimsOf("42")), errAlgorithm},
		{"ALG", "", sign(`{"kid":"a","ALG":"HS256"}`, claimsOf("42")), errAlgorithm},
		{"another HMAC of the same key", "", mint(t, jwt.SigningMethodHS512, []byte(secretA),
			`{"alg":"HS512","kid":"a"}`, claimsOf("42")), errAlgorithm},
		{"an HMAC other than alg says", "", mint(t, jwt.SigningMethodHS512, []byte(secretA),
			`{"alg":"HS256","kid":"a"}`, claimsOf("42")), errSignature},
		{"PS256 with the RS256 key", "a=RS256:@rsa.pem", mint(t, jwt.SigningMethodPS256, k.rsa,
			`{"alg":"PS256","kid":"a"}`, claimsOf("42")), errAlgorithm},
		{"public RSA key as HMAC secret", "a=RS256:@rsa.pem", mint(t, jwt.SigningMethodHS256, rsaPublic,
			`{"alg":"HS256","kid":"a"}`, claimsOf("42")), errAlgorithm},
		{"the same, trimmed", "a=RS256:@rsa.pem", mint(t, jwt.SigningMethodHS256, bytes.TrimSpace(rsaPublic),
			`{"alg":"HS256","kid":"a"}`, claimsOf("42")), errAlgorithm},
		{"the same, saying RS256", "a=RS256:@rsa.pem", mint(t, jwt.SigningMethodHS256, rsaPublic,
			`{"alg":"RS256","kid":"a"}`, claimsOf("42")), errSignature},
		{"empty HMAC key", "", mint(t, jwt.SigningMethodHS256, []byte{}, header, claimsOf("42")), errSignature},
		{"crit", "", sign(`{"alg":"HS256","kid":"a","crit":["b64"],"b64":false}`, claimsOf("42")), errCritical},
		{"empty crit", "", sign(`{"alg":"HS256","kid":"a","crit":[]}`, claimsOf("42")), errCritical},
		{"crit null", "", sign(`{"alg":"HS256","kid":"a","crit":null}`, claimsOf("42")), errCritical},
		{"typ logout", "", sign(`{"alg":"HS256","kid":"a","typ":"logout+jwt"}`, claimsOf("42")), errTyp},
		{"typ empty", "", sign(`{"alg":"HS256","kid":"a","typ":""}`, claimsOf("42")), errTyp},
		{"typ not a string", "", sign(`{"alg":"HS256","kid":"a","typ":null}`, claimsOf("42")), errTyp},
		{"alg twice", "", sign(`{"alg":"none","alg":"HS256","kid":"a"}`, claimsOf("42")), errRepeated},
		{"alg twice, once escaped", "", sign(`{"alg":"none","\u0061lg":"HS256","kid":"a"}`, claimsOf("42")), errRepeated},
		{"header not JSON", "", sign(`alg=HS256`, claimsOf("42")), errJSON},
		{"header an array", "", sign(`["HS256"]`, claimsOf("42")), errJSON},
		{"header with more behind it", "", sign(header+`{}`, claimsOf("42")), errJSON},
		{"header not UTF-8", "", sign("{\"alg\":\"HS256\",\"kid\":\"a\",\"x\":\"\xff\"}", claimsOf("42")), errJSON},
		{"header empty", "", sign("", claimsOf("42")), errJSON},

		// Key.
		{"wrong kid", "", sign(`{"alg":"HS256","kid":"z"}`, claimsOf("42")), errKeyID},
		{"empty kid", "", sign(`{"alg":"HS256","kid":""}`, claimsOf("42")), errKeyID},
		{"kid null", "", sign(`{"alg":"HS256","kid":null}`, claimsOf("42")), errKeyID},
		{"kid not a string", "", sign(`{"alg":"HS256","kid":1}`, claimsOf("42")), errKeyID},
		{"kid in another case", "", sign(`{"alg":"HS256","kid":"A"}`, claimsOf("42")), errKeyID},
		{"kid of the other key", "a=HS256:" + secretA + ",b=HS256:" + secretB,
			sign(`{"alg":"HS256","kid":"b"}`, claimsOf("42")), errSignature},
		{"two keys, no kid", "a=HS256:" + secretA + ",b=HS256:" + secretB,
			sign(`{"alg":"HS256"}`, claimsOf("42")), errNoKeyID},
		{"no keys at all", " ", good, errNoKeys},
		{"another secret", "a=HS256:" + secretB, good, errSignature},
		{"claims exchanged", "", strings.Join([]string{strings.Split(good, ".")[0],
			segment(claimsOf("43")), strings.Split(good, ".")[2]}, "."), errSignature},
		{"ES256 signature too short", "a=ES256:@p256.pem", segment(`{"alg":"ES256","kid":"a"}`) + "." +
			segment(claimsOf("42")) + "." + segment("short"), errSignature},
		{"EdDSA signature too short", "a=EdDSA:@ed.pem", segment(`{"alg":"EdDSA","kid":"a"}`) + "." +
			segment(claimsOf("42")) + "." + segment("short"), errSignature},
		{"ES256 of all zeros", "a=ES256:@p256.pem", segment(`{"alg":"ES256","kid":"a"}`) + "." +
			segment(claimsOf("42")) + "." + segment(strings.Repeat("\x00", 64)), errSignature},
		{"forged and expired: the signature comes first", "a=HS256:" + secretB, claims(`{"sub":"42","exp":1}`), errSignature},

		// Claims.
		{"no sub", "", claims(`{"exp":%d}`, later), errNoSubject},
		{"SUB", "", claims(`{"SUB":"42","exp":%d}`, later), errNoSubject},
		{"empty sub", "", claims(`{"sub":"","exp":%d}`, later), errSubject},
		{"sub null", "", claims(`{"sub":null,"exp":%d}`, later), errSubject},
		{"sub a number", "", claims(`{"sub":42,"exp":%d}`, later), errSubject},
		{"sub a pattern", "", claims(`{"sub":"*","exp":%d}`, later), errSubject},
		{"sub with a colon", "", claims(`{"sub":"42:log","exp":%d}`, later), errSubject},
		{"sub with a newline", "", claims(`{"sub":"42\n","exp":%d}`, later), errSubject},
		{"sub of 129 bytes", "", claims(`{"sub":%q,"exp":%d}`, strings.Repeat("4", 129), later), errSubject},
		{"sub twice", "", claims(`{"sub":"1","sub":"42","exp":%d}`, later), errRepeated},
		{"sub twice, once escaped", "", claims(`{"sub":"1","\u0073ub":"42","exp":%d}`, later), errRepeated},
		{"any member twice", "", claims(`{"x":1,"sub":"42","exp":%d,"x":2}`, later), errRepeated},
		{"no exp", "", claims(`{"sub":"42"}`), errNoExpiry},
		{"EXP", "", claims(`{"sub":"42","EXP":%d}`, later), errNoExpiry},
		{"Exp beside an expired exp", "", claims(`{"sub":"42","exp":%d,"Exp":%d}`, at-1, later), errExpired},
		{"exp null", "", claims(`{"sub":"42","exp":null}`), errExpiry},
		{"exp a string", "", claims(`{"sub":"42","exp":"%d"}`, later), errExpiry},
		{"exp in milliseconds", "", claims(`{"sub":"42","exp":%d000}`, later), errExpiry},
		{"exp over every range", "", claims(`{"sub":"42","exp":1e300}`), errExpiry},
		{"exp infinite", "", claims(`{"sub":"42","exp":1e999}`), errExpiry},
		{"exp negative", "", claims(`{"sub":"42","exp":-1}`), errExpiry},
		{"exp zero", "", claims(`{"sub":"42","exp":0}`), errExpired},
		{"expired a second ago", "", claims(`{"sub":"42","exp":%d}`, at-1), errExpired},
		{"expires now", "", claims(`{"sub":"42","exp":%d}`, at), errExpired},
		{"nbf in a second", "", hs256(t, claimsOf("42", fmt.Sprintf(`"nbf":%d`, at+1))), errNotYet},
		{"nbf in half a second", "", hs256(t, claimsOf("42", fmt.Sprintf(`"nbf":%d.5`, at))), errNotYet},
		{"nbf a string", "", hs256(t, claimsOf("42", `"nbf":"1"`)), errBadBefore},
		{"nbf null", "", hs256(t, claimsOf("42", `"nbf":null`)), errBadBefore},
		{"iat in a second", "", hs256(t, claimsOf("42", fmt.Sprintf(`"iat":%d`, at+1))), errFromFuture},
		{"iat a string", "", hs256(t, claimsOf("42", `"iat":"1"`)), errBadIssued},
		{"claims an array", "", claims(`["42"]`), errJSON},
		{"claims null", "", claims(`null`), errJSON},
		{"claims with more behind them", "", hs256(t, claimsOf("42")+"x"), errJSON},
		{"claims not UTF-8", "", hs256(t, claimsOf("42", "\"x\":\"\xff\"")), errJSON},
		{"claims with a trailing comma", "", claims(`{"sub":"42","exp":%d,}`, later), errJSON},
		{"claims empty", "", claims(``), errJSON},
	} {
		t.Run(row.name, func(t *testing.T) {
			keys := row.keys
			if keys == "" {
				keys = "a=HS256:" + secretA
			}
			p, err := verifier(t, keys).Verify(context.Background(), row.token)
			if err != row.want || !errors.Is(err, ErrCredentials) {
				t.Errorf("error %v, want %v", err, row.want)
			}
			if p != (Principal{}) {
				t.Errorf("refused with the principal %+v", p)
			}
		})
	}
}

// respell changes the unused bits of the last base64 character.
func respell(t *testing.T, token string) string {
	last := token[len(token)-1]
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") {
		other := token[:len(token)-1] + string(c)
		a, _ := base64.RawURLEncoding.DecodeString(other[strings.LastIndex(other, ".")+1:])
		b, _ := base64.RawURLEncoding.DecodeString(token[strings.LastIndex(token, ".")+1:])
		if c != last && bytes.Equal(a, b) {
			return other
		}
	}
	t.Fatal("the last character has no unused bits")
	return ""
}

func TestVerifyAccepts(t *testing.T) {
	k := asymmetric()
	at := now.Unix()
	hs := func(header, claims string) string {
		return mint(t, jwt.SigningMethodHS256, []byte(secretA), header, claims)
	}
	for _, row := range []struct {
		name, keys, token string
		scopes            Scopes
	}{
		{"HS256", "", hs256(t, claimsOf("42")), 0},
		{"HS384", "a=HS384:" + secretA, mint(t, jwt.SigningMethodHS384, []byte(secretA), `{"alg":"HS384","kid":"a"}`, claimsOf("42")), 0},
		{"HS512", "a=HS512:" + secretA, mint(t, jwt.SigningMethodHS512, []byte(secretA), `{"alg":"HS512","kid":"a"}`, claimsOf("42")), 0},
		{"RS256", "a=RS256:@rsa.pem", mint(t, jwt.SigningMethodRS256, k.rsa, `{"alg":"RS256","kid":"a"}`, claimsOf("42")), 0},
		{"RS256 from PKCS 1", "a=RS256:@pkcs1.pem", mint(t, jwt.SigningMethodRS256, k.rsa, `{"alg":"RS256","kid":"a"}`, claimsOf("42")), 0},
		{"ES256", "a=ES256:@p256.pem", mint(t, jwt.SigningMethodES256, k.p256, `{"alg":"ES256","kid":"a"}`, claimsOf("42")), 0},
		{"ES256 from an outdated certificate", "a=ES256:@cert.pem", mint(t, jwt.SigningMethodES256, k.p256, `{"alg":"ES256","kid":"a"}`, claimsOf("42")), 0},
		{"EdDSA", "a=EdDSA:@ed.pem", mint(t, jwt.SigningMethodEdDSA, k.ed, `{"alg":"EdDSA","kid":"a"}`, claimsOf("42")), 0},
		{"secret from a file", "a=HS256:@32.txt", hs256(t, claimsOf("42")), 0},
		{"secret from a Windows file", "a=HS256:@crlf.txt", hs256(t, claimsOf("42")), 0},
		{"secret with a newline in it", "a=HS256:@newlines.txt", mint(t, jwt.SigningMethodHS256, []byte(secretA+"\n"), `{"alg":"HS256"}`, claimsOf("42")), 0},
		{"no kid, one key", "", hs(`{"alg":"HS256"}`, claimsOf("42")), 0},
		{"rotation, old key", "a=HS256:" + secretA + ",b=HS256:" + secretB, hs256(t, claimsOf("42")), 0},
		{"rotation, new key", "b=HS256:" + secretB + ", a=HS256:" + secretA, hs256(t, claimsOf("42")), 0},
		{"rotation to another algorithm", "b=RS256:@rsa.pem,a=HS256:" + secretA, hs256(t, claimsOf("42")), 0},
		{"typ jwt", "", hs(`{"alg":"HS256","typ":"jwt"}`, claimsOf("42")), 0},
		{"typ at+JWT", "", hs(`{"alg":"HS256","typ":"at+JWT"}`, claimsOf("42")), 0},
		{"keys offered by the header are ignored", "", hs(`{"alg":"HS256","jwk":{"kty":"oct","k":"YQ"},"jku":"https://evil.example/"}`, claimsOf("42")), 0},
		{"space in the JSON", "", hs(` {"alg" : "HS256" } `, " "+claimsOf("42")+"\n"), 0},
		{"expires in half a second", "", hs256(t, fmt.Sprintf(`{"sub":"42","exp":%d.5}`, at)), 0},
		{"exp as a power", "", hs256(t, `{"sub":"42","exp":2.5e9}`), 0},
		{"nbf and iat now", "", hs256(t, claimsOf("42", fmt.Sprintf(`"nbf":%d,"iat":%d`, at, at))), 0},
		{"other members repeat inside a claim", "", hs256(t, claimsOf("42", `"x":{"a":1,"a":2}`)), 0},
		{"sub with escapes", "", hs256(t, strings.Replace(claimsOf("42"), `"42"`, `"\u00342"`, 1)), 0},
		{"quotes, colons and braces in a string", "", hs256(t, claimsOf("42", `"x":"\":{\\","y\"":["\\",{"z":":"}]`)), 0},
		{"a quote and a colon in a string", "", hs256(t, claimsOf("42", `"x":"\":"`)), 0},
		{"iss and aud not configured", "", hs256(t, claimsOf("42", `"iss":7,"aud":{}`)), 0},
		{"scope", "", hs256(t, claimsOf("42", `"scope":"publish"`)), ScopePublish},
		{"scopes", "", hs256(t, claimsOf("42", `"scope":"openid presence  publish sessions:read"`)), ScopePublish | ScopePresence},
		{"scope in another case", "", hs256(t, claimsOf("42", `"scope":"Publish","SCOPE":"publish"`)), 0},
		{"scope separated by commas", "", hs256(t, claimsOf("42", `"scope":"publish,sessions"`)), 0},
		{"scope an array", "", hs256(t, claimsOf("42", `"scope":["publish"]`)), 0},
		{"8192 bytes", "", ofSize(t, maxTokenBytes), 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			keys := row.keys
			if keys == "" {
				keys = "a=HS256:" + secretA
			}
			p, err := verifier(t, keys).Verify(context.Background(), row.token)
			if err != nil {
				t.Fatal(err)
			}
			if p.UserID != "42" || p.Name != "42" || p.Method != MethodJWT || p.SessionHandle != "" || !p.Expires.After(now) {
				t.Errorf("principal %+v, want user 42 by JWT", p)
			}
			if p.Scopes != row.scopes {
				t.Errorf("scopes %q, want %q", p.Scopes, row.scopes)
			}
		})
	}
}

// ofSize returns a valid token of exactly n bytes.
func ofSize(t *testing.T, n int) string {
	for _, header := range []string{`{"alg":"HS256"}`, `{"alg":"HS256" }`, `{"alg":"HS256"  }`} {
		for pad := n/2 - 64; pad < n; pad++ {
			token := mint(t, jwt.SigningMethodHS256, []byte(secretA), header, claimsOf("42", `"x":"`+strings.Repeat("x", pad)+`"`))
			if len(token) == n {
				return token
			}
			if len(token) > n {
				break
			}
		}
	}
	t.Fatalf("no token of %d bytes", n)
	return ""
}

func TestVerifyExpires(t *testing.T) {
	p, err := verifier(t, "a=HS256:"+secretA).Verify(context.Background(), hs256(t, fmt.Sprintf(`{"sub":"42","exp":%d.25}`, now.Unix()+7)))
	if want := now.Add(7250 * time.Millisecond); err != nil || !p.Expires.Equal(want) {
		t.Errorf("expires %v, %v; want %v", p.Expires, err, want)
	}
}

func TestVerifyIssuerAndAudience(t *testing.T) {
	v := NewVerifier(mustKeys(t, "a=HS256:"+secretA), VerifierOptions{Issuer: "us", Audience: "herald", Now: atNow})
	for _, row := range []struct {
		claims string
		want   error
	}{
		{`"iss":"us","aud":"herald"`, nil},
		{`"iss":"us","aud":["other","herald"]`, nil},
		{`"aud":"herald"`, errIssuer},
		{`"iss":"them","aud":"herald"`, errIssuer},
		{`"iss":"US","aud":"herald"`, errIssuer},
		{`"iss":["us"],"aud":"herald"`, errIssuer},
		{`"ISS":"us","aud":"herald"`, errIssuer},
		{`"iss":"us"`, errAudience},
		{`"iss":"us","aud":"other"`, errAudience},
		{`"iss":"us","aud":"herald2"`, errAudience},
		{`"iss":"us","aud":[]`, errAudience},
		{`"iss":"us","aud":null`, errAudience},
		{`"iss":"us","aud":["herald",null]`, errAudience},
		{`"iss":"us","aud":["herald",7]`, errAudience},
		{`"iss":"us","aud":{"herald":1}`, errAudience},
		{`"iss":"us","AUD":"herald"`, errAudience},
	} {
		if _, err := v.Verify(context.Background(), hs256(t, claimsOf("42", row.claims))); err != row.want {
			t.Errorf("%s: error %v, want %v", row.claims, err, row.want)
		}
	}
}

func TestVerifyConcurrently(t *testing.T) {
	v := verifier(t, "a=HS256:"+secretA+",b=ES256:@p256.pem")
	tokens := []string{hs256(t, claimsOf("42")), mint(t, jwt.SigningMethodES256, asymmetric().p256,
		`{"alg":"ES256","kid":"b"}`, claimsOf("43"))}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 50 {
				want := []string{"42", "43"}[i%2]
				if p, err := v.Verify(context.Background(), tokens[i%2]); err != nil || p.UserID != want {
					t.Errorf("principal %+v, %v", p, err)
				}
			}
		})
	}
	wg.Wait()
}

// golang-jwt, in its strictest mode, accepts every token that Verify accepts, and
// for the same user. Verify accepts no token signed with another key.
func FuzzVerify(f *testing.F) {
	f.Add([]byte(`{"alg":"HS256","kid":"a"}`), []byte(claimsOf("42")), true)
	f.Add([]byte(`{"alg":"HS256","typ":"JWT"}`), []byte(claimsOf("42", `"nbf":1,"iat":1.5,"aud":["x"],"scope":"publish"`)), true)
	f.Add([]byte(`{"alg":"none"}`), []byte(`{"sub":"42","sub":"43","exp":1e10}`), false)
	v := verifier(f, "a=HS256:"+secretA)
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"HS256"}), jwt.WithStrictDecoding(),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithTimeFunc(atNow))
	f.Fuzz(func(t *testing.T, header, claims []byte, honest bool) {
		secret := secretA
		if !honest {
			secret = secretB
		}
		token := mint(t, jwt.SigningMethodHS256, []byte(secret), string(header), string(claims))
		p, err := v.Verify(context.Background(), token)
		if err != nil {
			if p != (Principal{}) || Detail(err) == "" {
				t.Fatalf("refused with %+v, %v", p, err)
			}
			return
		}
		if !honest {
			t.Fatal("accepted a forged token")
		}
		parsed, err := parser.Parse(token, func(*jwt.Token) (any, error) { return []byte(secretA), nil })
		// golang-jwt truncates exp to whole seconds.
		if err != nil && !errors.Is(err, jwt.ErrTokenExpired) {
			t.Fatalf("golang-jwt refuses: %v", err)
		}
		if sub, _ := parsed.Claims.GetSubject(); sub != p.UserID {
			t.Fatalf("Verify returns user %q, golang-jwt %q", p.UserID, sub)
		}
	})
}

func FuzzVerifyText(f *testing.F) {
	good := hs256(f, claimsOf("42"))
	v := verifier(f, "a=HS256:"+secretA)
	f.Add(good)
	f.Add(good + "\n")
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, token string) {
		if _, err := v.Verify(context.Background(), token); err == nil && token != good {
			t.Fatalf("accepted %q", token)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	k := asymmetric()
	claims := claimsOf("42", `"iss":"us","aud":"herald","iat":1,"nbf":1,"jti":"9f2c","scope":"publish"`)
	for _, row := range []struct {
		keys   string
		method jwt.SigningMethod
		key    any
	}{
		{"a=HS256:" + secretA, jwt.SigningMethodHS256, []byte(secretA)},
		{"a=ES256:@p256.pem", jwt.SigningMethodES256, k.p256},
		{"a=RS256:@rsa.pem", jwt.SigningMethodRS256, k.rsa},
		{"a=EdDSA:@ed.pem", jwt.SigningMethodEdDSA, k.ed},
	} {
		alg := row.method.Alg()
		token := mint(b, row.method, row.key, `{"alg":"`+alg+`","typ":"JWT","kid":"a"}`, claims)
		v := NewVerifier(mustKeys(b, row.keys), VerifierOptions{Issuer: "us", Audience: "herald", Now: atNow})
		a := NewAuthenticator(new(APIKeys), v, nil, nil)
		c := Credentials{Query: Given(QueryToken([]string{token}))}
		b.Run(alg, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(context.Background(), token); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(alg+"/Authenticate", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := a.Authenticate(context.Background(), c); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
