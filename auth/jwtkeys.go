package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

const (
	minHMACSecret = 32 // bytes; golang-jwt accepts an empty one
	minRSABits    = 2048
	maxKeyIDBytes = 128
)

// jwtMethods is the allow-list of algorithms. A token cannot name another.
var jwtMethods = []jwt.SigningMethod{
	jwt.SigningMethodHS256, jwt.SigningMethodHS384, jwt.SigningMethodHS512,
	jwt.SigningMethodRS256, jwt.SigningMethodES256, jwt.SigningMethodEdDSA,
}

// JWTKeys are the keys that JWTs may be signed with, by key id. The zero value
// holds none and so accepts no token. It never changes once parsed.
type JWTKeys struct {
	byID map[string]jwtKey
}

// jwtKey is bound to one algorithm, so a token cannot choose how its key is
// used (a public RSA key as an HMAC secret). The key itself is only in the closure,
// so that printing a jwtKey cannot show it.
type jwtKey struct {
	alg   string
	check func(signed string, signature []byte) error
}

// ParseJWTKeys reads kid=ALG:secret or kid=ALG:@file.pem, comma-separated, space
// around an entry ignored; an empty text holds no keys. ALG is HS256, HS384,
// HS512, RS256 (2048 bits or more), ES256 (P-256) or EdDSA (Ed25519). Several
// keys at once are for rotation, and no two share a key id.
//
// An HMAC secret has at least 32 bytes, literally as given, and cannot hold a
// comma; from a file it is the file's bytes without one newline at their end.
// A PEM file is refused there, because public keys are no secret. The others
// come from a file with one PEM block, a public key or a certificate, of which
// only the key counts: neither its dates nor its issuer are looked at.
//
// readFile is os.ReadFile. Errors name the key id or the position and repeat
// nothing that may be a secret.
func ParseJWTKeys(text string, readFile func(name string) ([]byte, error)) (*JWTKeys, error) {
	k := &JWTKeys{byID: map[string]jwtKey{}}
	for i, entry := range splitList(text) {
		id, alg, source, err := splitJWTKey(entry)
		if err != nil {
			return nil, fmt.Errorf("JWT key %d: %w", i+1, err)
		}
		if _, taken := k.byID[id]; taken {
			return nil, fmt.Errorf("JWT key %q: its key id is used twice", id)
		}
		key, err := newJWTKey(alg, source, readFile)
		if err != nil {
			return nil, fmt.Errorf("JWT key %q: %w", id, err)
		}
		k.byID[id] = key
	}
	return k, nil
}

// Len returns the number of keys.
func (k *JWTKeys) Len() int { return len(k.byID) }

// sole returns the key for tokens without key id: the only key, if there is one only.
func (k *JWTKeys) sole() (jwtKey, bool) {
	if len(k.byID) == 1 {
		for _, key := range k.byID {
			return key, true
		}
	}
	return jwtKey{}, false
}

func splitJWTKey(entry string) (id, alg, source string, err error) {
	id, rest, ok1 := strings.Cut(entry, "=")
	alg, source, ok2 := strings.Cut(rest, ":")
	if !ok1 || !ok2 {
		return "", "", "", errors.New("must have the form kid=ALG:secret or kid=ALG:@file.pem")
	}
	if len(id) == 0 || len(id) > maxKeyIDBytes || !only(id, isKeyIDChar) {
		return "", "", "", fmt.Errorf("its key id must be 1 to %d characters of A-Z a-z 0-9 . _ ~ + / @ -", maxKeyIDBytes)
	}
	return id, alg, source, nil
}

// isKeyIDChar leaves out the colon, so that a key without id ("HS256:c2Vj…=")
// is not taken for an id, and printed.
func isKeyIDChar(c byte) bool {
	return isAlphanumeric(c) || strings.IndexByte("._~+/@-", c) >= 0
}

func newJWTKey(alg, source string, readFile func(string) ([]byte, error)) (jwtKey, error) {
	i := slices.IndexFunc(jwtMethods, func(m jwt.SigningMethod) bool { return m.Alg() == alg })
	if i < 0 {
		return jwtKey{}, errors.New("its algorithm must be HS256, HS384, HS512, RS256, ES256 or EdDSA")
	}
	method := jwtMethods[i]
	material, err := readKey(method, source, readFile)
	if err != nil {
		return jwtKey{}, err
	}
	return verifyingKey(method, material), nil
}

func verifyingKey(method jwt.SigningMethod, material any) jwtKey {
	return jwtKey{alg: method.Alg(), check: func(signed string, signature []byte) error {
		return method.Verify(signed, signature, material)
	}}
}

func readKey(method jwt.SigningMethod, source string, readFile func(string) ([]byte, error)) (any, error) {
	_, symmetric := method.(*jwt.SigningMethodHMAC)
	name, inFile := strings.CutPrefix(source, "@")
	switch {
	case !inFile && symmetric:
		return hmacSecret([]byte(source))
	case !inFile:
		return nil, fmt.Errorf("%s needs a public key from a file: %s:@file.pem", method.Alg(), method.Alg())
	}
	data, err := readFile(name)
	if err != nil {
		return nil, fmt.Errorf("read its file: %w", err)
	}
	if symmetric {
		return hmacSecret(withoutNewline(data))
	}
	public, err := publicKey(data)
	if err != nil {
		return nil, err
	}
	return suited(method, public)
}

func hmacSecret(secret []byte) (any, error) {
	if block, _ := pem.Decode(secret); block != nil {
		return nil, errors.New("its file holds PEM; an HMAC secret must be random bytes")
	}
	if len(secret) < minHMACSecret {
		return nil, fmt.Errorf("its HMAC secret must have at least %d bytes", minHMACSecret)
	}
	return secret, nil
}

func withoutNewline(data []byte) []byte {
	s := strings.TrimSuffix(string(data), "\n")
	return []byte(strings.TrimSuffix(s, "\r"))
}

// publicKey reads the one public key or certificate of a PEM file. A private
// key is refused even though its public half would do: it has no business here.
func publicKey(data []byte) (crypto.PublicKey, error) {
	var blocks []*pem.Block
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if strings.Contains(block.Type, "PRIVATE KEY") {
			return nil, errors.New("its file holds a private key; give the public one")
		}
		blocks = append(blocks, block)
	}
	if len(blocks) != 1 {
		return nil, fmt.Errorf("its file must hold one PEM block, not %d", len(blocks))
	}
	key, err := parseBlock(blocks[0])
	if err != nil {
		return nil, fmt.Errorf("read its PEM block: %w", err)
	}
	return key, nil
}

func parseBlock(b *pem.Block) (crypto.PublicKey, error) {
	switch b.Type {
	case "PUBLIC KEY":
		return x509.ParsePKIXPublicKey(b.Bytes)
	case "RSA PUBLIC KEY":
		return x509.ParsePKCS1PublicKey(b.Bytes)
	case "CERTIFICATE":
		cert, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, err
		}
		return cert.PublicKey, nil
	}
	return nil, errors.New("it is neither a public key nor a certificate")
}

// suited checks that the key is of the algorithm's kind and strong enough.
func suited(method jwt.SigningMethod, public crypto.PublicKey) (any, error) {
	switch key := public.(type) {
	case *rsa.PublicKey:
		if method == jwt.SigningMethod(jwt.SigningMethodRS256) {
			return key, rsaProblem(key)
		}
	case *ecdsa.PublicKey:
		if method == jwt.SigningMethod(jwt.SigningMethodES256) {
			return key, ecdsaProblem(key)
		}
	case ed25519.PublicKey:
		if method == jwt.SigningMethod(jwt.SigningMethodEdDSA) {
			return key, nil
		}
	}
	return nil, fmt.Errorf("its file holds no key for %s", method.Alg())
}

func rsaProblem(key *rsa.PublicKey) error {
	if key.N.BitLen() < minRSABits {
		return fmt.Errorf("its RSA key must have at least %d bits", minRSABits)
	}
	return nil
}

func ecdsaProblem(key *ecdsa.PublicKey) error {
	if key.Curve != elliptic.P256() {
		return errors.New("ES256 needs a key on the curve P-256")
	}
	return nil
}
