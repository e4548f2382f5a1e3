package auth

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io/fs"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// now is the time that atNow, the clock of all tests, returns.
var now = time.Unix(1_764_000_000, 0)

func atNow() time.Time { return now }

const (
	secretA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" // 32 bytes
	secretB = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

// asymmetric returns one key of each kind, generated once because RSA is slow.
var asymmetric = sync.OnceValue(func() (k struct {
	rsa, rsa1024 *rsa.PrivateKey
	p256, p384   *ecdsa.PrivateKey
	ed           ed25519.PrivateKey
}) {
	k.rsa, _ = rsa.GenerateKey(rand.Reader, 2048)
	k.rsa1024, _ = rsa.GenerateKey(rand.Reader, 1024)
	k.p256, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	k.p384, _ = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	_, k.ed, _ = ed25519.GenerateKey(rand.Reader)
	return k
})

func pemOf(t testing.TB, kind string, der []byte, err error) []byte {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func publicPEM(t testing.TB, public any) []byte {
	der, err := x509.MarshalPKIXPublicKey(public)
	return pemOf(t, "PUBLIC KEY", der, err)
}

func certificatePEM(t testing.TB) []byte {
	k := asymmetric().p256
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Unix(1, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	return pemOf(t, "CERTIFICATE", der, err)
}

// keyFiles returns the key files that settings in tests refer to, by name.
func keyFiles(t testing.TB) map[string][]byte {
	k := asymmetric()
	pkcs8, err := x509.MarshalPKCS8PrivateKey(k.rsa)
	private := pemOf(t, "PRIVATE KEY", pkcs8, err)
	sec1, err := x509.MarshalECPrivateKey(k.p256)
	ec := append(pemOf(t, "EC PARAMETERS", []byte{6, 8}, nil), pemOf(t, "EC PRIVATE KEY", sec1, err)...)
	public := publicPEM(t, k.rsa.Public())
	return map[string][]byte{
		"rsa.pem":       public,
		"pkcs1.pem":     pemOf(t, "RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&k.rsa.PublicKey), nil),
		"rsa1024.pem":   publicPEM(t, k.rsa1024.Public()),
		"p256.pem":      publicPEM(t, k.p256.Public()),
		"p384.pem":      publicPEM(t, k.p384.Public()),
		"ed.pem":        publicPEM(t, k.ed.Public()),
		"cert.pem":      certificatePEM(t),
		"private.pem":   private,
		"ec.pem":        ec,
		"both.pem":      append(append([]byte{}, public...), private...),
		"two.pem":       append(append([]byte{}, public...), public...),
		"csr.pem":       pemOf(t, "CERTIFICATE REQUEST", []byte{1}, nil),
		"garbled.pem":   pemOf(t, "PUBLIC KEY", []byte{1}, nil),
		"text.txt":      []byte("not PEM at all, but long enough for HMAC\n"),
		"empty.txt":     nil,
		"31.txt":        []byte(secretA[:31] + "\n"),
		"32.txt":        []byte(secretA + "\n"),
		"crlf.txt":      []byte(secretA + "\r\n"),
		"newlines.txt":  []byte(secretA + "\n\n"),
		"newline31.txt": []byte(secretA[:30] + "\n\n"),
	}
}

func readKeyFile(t testing.TB) func(string) ([]byte, error) {
	files := keyFiles(t)
	return func(name string) ([]byte, error) {
		data, ok := files[name]
		if !ok {
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
		return data, nil
	}
}

func mustKeys(t testing.TB, text string) *JWTKeys {
	t.Helper()
	keys, err := ParseJWTKeys(text, readKeyFile(t))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func verifier(t testing.TB, keys string) *Verifier {
	t.Helper()
	return NewVerifier(mustKeys(t, keys), VerifierOptions{Now: atNow})
}

// mint returns a token with this header and these claims, byte for byte.
func mint(t testing.TB, method jwt.SigningMethod, key any, header, claims string) string {
	t.Helper()
	text := segment(header) + "." + segment(claims)
	signature, err := method.Sign(text, key)
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func segment(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// hs256 returns a token with key id a, signed with secretA.
func hs256(t testing.TB, claims string) string {
	t.Helper()
	return mint(t, jwt.SigningMethodHS256, []byte(secretA), `{"alg":"HS256","typ":"JWT","kid":"a"}`, claims)
}

// claimsOf returns claims that expire in an hour, followed by the members in more.
func claimsOf(sub string, more ...string) string {
	return fmt.Sprintf(`{"sub":%q,"exp":%d%s}`, sub, now.Unix()+3600, strings.Join(append([]string{""}, more...), ","))
}
