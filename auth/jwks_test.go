package auth

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
)

// published is a key set source whose answers and clock the test sets.
type published struct {
	mu    sync.Mutex
	text  string    // guarded by mu
	err   error     // guarded by mu
	asked []bool    // guarded by mu; the renew argument of each call
	now   time.Time // guarded by mu
}

func (p *published) source(_ context.Context, renew bool) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, renew)
	return []byte(p.text), p.err
}

func (p *published) clock() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now
}

func (p *published) set(text string, err error, later time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text, p.err, p.now = text, err, p.now.Add(later)
}

func (p *published) wantAsked(t *testing.T, n int) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.asked) != n {
		t.Errorf("the source was called %d times, want %d", len(p.asked), n)
	}
}

// keySetOf returns a JSON Web Key Set with one key, whose JSON ends with more.
func keySetOf(t *testing.T, key crypto.PublicKey, more string) string {
	t.Helper()
	return `{"keys":[` + jwkOf(t, key, more) + `]}`
}

func jwkOf(t *testing.T, key any, more string) string {
	t.Helper()
	k, err := jwkset.NewJWKFromKey(key, jwkset.JWKOptions{Marshal: jwkset.JWKMarshalOptions{Private: true}})
	if err != nil {
		t.Fatal(err)
	}
	m := k.Marshal()
	m.ALG = "" // the library sets it; a test case sets alg in more, or omits it
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(string(b), "}") + more + "}"
}

func jwksVerifier(t *testing.T, text, static string) (*published, *Verifier) {
	p := &published{text: text, now: now}
	v := NewVerifier(mustKeys(t, static), VerifierOptions{Now: atNow, JWKS: NewJWKS(p.source, JWKSOptions{Now: p.clock})})
	return p, v
}

func signed(t *testing.T, method jwt.SigningMethod, key any, kid string) string {
	t.Helper()
	return mint(t, method, key, `{"alg":"`+method.Alg()+`","kid":"`+kid+`"}`, claimsOf("42"))
}

func wantVerify(t *testing.T, v *Verifier, token string, want error) {
	t.Helper()
	if _, err := v.Verify(t.Context(), token); !errors.Is(err, want) {
		t.Errorf("Verify: %v, want %v", err, want)
	}
}

func TestKeySetVerifiesOnlyWithSuitableKeys(t *testing.T) {
	k := asymmetric()
	for name, row := range map[string]struct {
		key    any
		more   string
		method jwt.SigningMethod
		signer any
		ok     bool
	}{
		"RSA":                   {k.rsa.Public(), `,"kid":"k"`, jwt.SigningMethodRS256, k.rsa, true},
		"RSA, named":            {k.rsa.Public(), `,"kid":"k","alg":"RS256","use":"sig"`, jwt.SigningMethodRS256, k.rsa, true},
		"P-256":                 {k.p256.Public(), `,"kid":"k","key_ops":["verify"]`, jwt.SigningMethodES256, k.p256, true},
		"Ed25519":               {k.ed.Public(), `,"kid":"k"`, jwt.SigningMethodEdDSA, k.ed, true},
		"not this algorithm":    {k.rsa.Public(), `,"kid":"k"`, jwt.SigningMethodRS512, k.rsa, false},
		"algorithm not allowed": {k.rsa.Public(), `,"kid":"k","alg":"RS512"`, jwt.SigningMethodRS512, k.rsa, false},
		"another's algorithm":   {k.rsa.Public(), `,"kid":"k","alg":"ES256"`, jwt.SigningMethodRS256, k.rsa, false},
		"encryption":            {k.rsa.Public(), `,"kid":"k","use":"enc"`, jwt.SigningMethodRS256, k.rsa, false},
		"other operations":      {k.rsa.Public(), `,"kid":"k","key_ops":["encrypt"]`, jwt.SigningMethodRS256, k.rsa, false},
		"weak RSA":              {k.rsa1024.Public(), `,"kid":"k"`, jwt.SigningMethodRS256, k.rsa1024, false},
		"P-384":                 {k.p384.Public(), `,"kid":"k"`, jwt.SigningMethodES384, k.p384, false},
		"private":               {k.ed, `,"kid":"k"`, jwt.SigningMethodEdDSA, k.ed, false},
		"no key id":             {k.ed.Public(), ``, jwt.SigningMethodEdDSA, k.ed, false},
		"symmetric":             {[]byte(secretA), `,"kid":"k","alg":"HS256"`, jwt.SigningMethodHS256, []byte(secretA), false},
	} {
		t.Run(name, func(t *testing.T) {
			text := keySetOf(t, row.key, row.more)
			if err := CheckKeySet([]byte(text)); (err == nil) != row.ok && row.method != jwt.SigningMethod(jwt.SigningMethodRS512) {
				t.Errorf("CheckKeySet: %v", err)
			}
			// A second, good key keeps the set valid, so only the key under test is refused.
			text = strings.TrimSuffix(text, "]}") + "," + jwkOf(t, k.ed.Public(), `,"kid":"good"`) + "]}"
			_, v := jwksVerifier(t, text, "")
			want := error(ErrCredentials)
			if row.ok {
				want = nil
			}
			wantVerify(t, v, signed(t, row.method, row.signer, "k"), want)
			wantVerify(t, v, signed(t, jwt.SigningMethodEdDSA, k.ed, "good"), nil)
		})
	}
}

func TestCheckKeySetRefusesSetsWithoutUsableKeys(t *testing.T) {
	for _, text := range []string{"", "<html>", "[]", `{}`, `{"keys":[]}`, `{"keys":[1]}`, `{"keys":[{"kty":"RSA"}]}`} {
		if err := CheckKeySet([]byte(text)); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

func TestStaticKeysComeFirst(t *testing.T) {
	p, v := jwksVerifier(t, keySetOf(t, asymmetric().ed.Public(), `,"kid":"a"`), "a=HS256:"+secretA)
	wantVerify(t, v, hs256(t, claimsOf("42")), nil)
	wantVerify(t, v, signed(t, jwt.SigningMethodEdDSA, asymmetric().ed, "a"), ErrCredentials)
	wantVerify(t, v, mint(t, jwt.SigningMethodHS256, []byte(secretA), `{"alg":"HS256"}`, claimsOf("42")), ErrCredentials) // without kid the key is ambiguous
	wantVerify(t, v, signed(t, jwt.SigningMethodEdDSA, asymmetric().ed, strings.Repeat("k", 129)), ErrCredentials)
	p.wantAsked(t, 0)
}

func TestKeyRotation(t *testing.T) {
	k := asymmetric()
	p, v := jwksVerifier(t, keySetOf(t, k.ed.Public(), `,"kid":"old"`), "")
	old, fresh := signed(t, jwt.SigningMethodEdDSA, k.ed, "old"), signed(t, jwt.SigningMethodRS256, k.rsa, "new")
	for range 3 {
		wantVerify(t, v, old, nil)
	}
	p.wantAsked(t, 1)
	for range 3 { // an unknown key id causes one more fetch
		wantVerify(t, v, fresh, ErrCredentials)
	}
	p.wantAsked(t, 2)
	p.set(keySetOf(t, k.rsa.Public(), `,"kid":"new"`), nil, 10*time.Second-1)
	wantVerify(t, v, fresh, ErrCredentials)
	p.wantAsked(t, 2)
	p.set(p.text, nil, 1)
	wantVerify(t, v, fresh, nil)
	wantVerify(t, v, old, ErrCredentials)
	p.wantAsked(t, 3)
	if p.asked[0] || !p.asked[1] || !p.asked[2] {
		t.Errorf("renew arguments %v, want false, true, true", p.asked)
	}
	// A withdrawn key is refused after Every, even if no unknown key id is seen.
	p.set(keySetOf(t, k.ed.Public(), `,"kid":"old"`), nil, time.Minute)
	wantVerify(t, v, fresh, ErrCredentials)
	wantVerify(t, v, old, nil)
}

func TestKeySetSourceFails(t *testing.T) {
	k := asymmetric()
	good, broken := keySetOf(t, k.ed.Public(), `,"kid":"k"`), errors.New("issuer is away")
	p, v := jwksVerifier(t, "", "")
	p.set("", broken, 0)
	token := signed(t, jwt.SigningMethodEdDSA, k.ed, "k")
	for range 3 {
		wantVerify(t, v, token, ErrUnavailable)
	}
	p.wantAsked(t, 1)
	p.set("<html>", nil, time.Second)
	wantVerify(t, v, token, ErrUnavailable)
	p.set(good, nil, time.Second)
	wantVerify(t, v, token, nil)

	p.set("<html>", nil, time.Minute) // an invalid set does not replace the keys
	wantVerify(t, v, token, nil)
	p.set("", broken, 58*time.Minute)
	wantVerify(t, v, token, nil)
	unknown := signed(t, jwt.SigningMethodEdDSA, k.ed, "other")
	for range 2 { // while the source fails, the key may exist
		wantVerify(t, v, unknown, ErrUnavailable)
	}
	p.set("", broken, time.Minute)
	wantVerify(t, v, token, ErrUnavailable)
	if Challenge(errNoKeySet) != "" {
		t.Error("a failed key set source is answered with a challenge")
	}
}

// Concurrent requests share one fetch.
func TestKeySetConcurrently(t *testing.T) {
	k := asymmetric()
	p, v := jwksVerifier(t, keySetOf(t, k.ed.Public(), `,"kid":"k"`), "")
	token, unknown := signed(t, jwt.SigningMethodEdDSA, k.ed, "k"), signed(t, jwt.SigningMethodEdDSA, k.ed, "other")
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() { wantVerify(t, v, token, nil) })
		group.Go(func() { wantVerify(t, v, unknown, ErrCredentials) })
	}
	group.Wait()
	p.wantAsked(t, 2)
}

// A canceled request that waits for another one's fetch returns at once. If the
// fetching request is canceled, the next request fetches again.
func TestCanceledRequestsLeaveTheKeySetUsable(t *testing.T) {
	k := asymmetric()
	set := keySetOf(t, k.ed.Public(), `,"kid":"k"`)
	for name, kid := range map[string]string{"no keys yet": "k", "unknown key id": "other"} {
		t.Run(name, func(t *testing.T) {
			asked, answer := make(chan struct{}), make(chan struct{})
			j := NewJWKS(func(ctx context.Context, renew bool) ([]byte, error) {
				if renew != (kid == "other") {
					return []byte(set), nil
				}
				asked <- struct{}{}
				select {
				case <-answer:
					return []byte(set), nil
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			}, JWKSOptions{Budget: time.Hour})
			key := func(ctx context.Context) <-chan error {
				done := make(chan error, 1)
				go func() { _, err := j.key(ctx, kid); done <- err }()
				return done
			}
			asking, giveUp := context.WithCancel(t.Context())
			first := key(asking)
			<-asked
			waiting, cancel := context.WithCancel(t.Context())
			second := key(waiting)
			cancel()
			select {
			case err := <-second:
				if !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.Canceled) {
					t.Errorf("the waiting request: %v", err)
				}
			case <-time.After(10 * time.Second): // only if the test fails
				t.Fatal("a canceled request waits for the fetch of another one")
			}
			giveUp()
			if err := <-first; !errors.Is(err, ErrUnavailable) {
				t.Errorf("the fetching request: %v", err)
			}
			third := key(t.Context())
			<-asked
			close(answer)
			if err := <-third; err != nil && kid == "k" || kid == "other" && !errors.Is(err, errKeyID) {
				t.Errorf("the next request: %v", err)
			}
		})
	}
}
