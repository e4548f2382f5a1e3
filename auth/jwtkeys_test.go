package auth

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
)

func TestParseJWTKeysRefuses(t *testing.T) {
	readFile := readKeyFile(t)
	for _, row := range []struct{ name, text, want string }{
		{"no equals sign", "mysecretmysecret", "JWT key 1: must have the form"},
		{"no algorithm", "a=mysecretmysecret", "JWT key 1: must have the form"},
		{"no key id", "=HS256:" + secretA, "JWT key 1: its key id must be"},
		{"an algorithm as key id", "HS256:bXlzZWNyZXQ=:" + secretA, "JWT key 1: its key id must be"},
		{"key id with a space", "a b=HS256:" + secretA, "JWT key 1: its key id must be"},
		{"key id too long", strings.Repeat("a", 129) + "=HS256:" + secretA, "JWT key 1: its key id must be"},
		{"empty entry", "a=HS256:" + secretA + ",", "JWT key 2: must have the form"},
		{"only a comma", ",", "JWT key 1: must have the form"},
		{"key id twice", "a=HS256:" + secretA + ",a=HS256:" + secretB, `JWT key "a": its key id is used twice`},
		{"none", "a=none:" + secretA, `JWT key "a": its algorithm must be`},
		{"algorithm in lower case", "a=hs256:" + secretA, `JWT key "a": its algorithm must be`},
		{"no algorithm before the colon", "a=:" + secretA, `JWT key "a": its algorithm must be`},
		{"PS256", "a=PS256:@rsa.pem", `JWT key "a": its algorithm must be`},
		{"ES384", "a=ES384:@p384.pem", `JWT key "a": its algorithm must be`},
		{"empty secret", "a=HS256:", `JWT key "a": its HMAC secret must have at least 32 bytes`},
		{"secret of one byte", "a=HS256:x", `JWT key "a": its HMAC secret must have at least 32 bytes`},
		{"secret of 31 bytes", "a=HS512:" + secretA[:31], `JWT key "a": its HMAC secret must have at least 32 bytes`},
		{"empty file", "a=HS256:@empty.txt", `JWT key "a": its HMAC secret must have at least 32 bytes`},
		{"31 bytes and a newline", "a=HS256:@31.txt", `JWT key "a": its HMAC secret must have at least 32 bytes`},
		{"30 bytes and two newlines", "a=HS256:@newline31.txt", `JWT key "a": its HMAC secret must have at least 32 bytes`},
		{"public key as HMAC secret", "a=HS256:@rsa.pem", `JWT key "a": its file holds PEM`},
		{"no such file", "a=HS256:@missing", `JWT key "a": read its file: open missing: file does not exist`},
		{"no file name", "a=RS256:@", `JWT key "a": read its file`},
		{"RS256 without a file", "a=RS256:" + secretA, `JWT key "a": RS256 needs a public key from a file`},
		{"private key", "a=RS256:@private.pem", `JWT key "a": its file holds a private key`},
		{"private key behind parameters", "a=ES256:@ec.pem", `JWT key "a": its file holds a private key`},
		{"private key behind a public one", "a=RS256:@both.pem", `JWT key "a": its file holds a private key`},
		{"two keys in a file", "a=RS256:@two.pem", `JWT key "a": its file must hold one PEM block, not 2`},
		{"not PEM", "a=RS256:@text.txt", `JWT key "a": its file must hold one PEM block, not 0`},
		{"empty PEM file", "a=RS256:@empty.txt", `JWT key "a": its file must hold one PEM block, not 0`},
		{"another kind of PEM", "a=RS256:@csr.pem", `JWT key "a": read its PEM block: it is neither`},
		{"garbled PEM", "a=RS256:@garbled.pem", `JWT key "a": read its PEM block: asn1`},
		{"RSA of 1024 bits", "a=RS256:@rsa1024.pem", `JWT key "a": its RSA key must have at least 2048 bits`},
		{"RSA key for ES256", "a=ES256:@rsa.pem", `JWT key "a": its file holds no key for ES256`},
		{"EC key for RS256", "a=RS256:@p256.pem", `JWT key "a": its file holds no key for RS256`},
		{"EC key for EdDSA", "a=EdDSA:@cert.pem", `JWT key "a": its file holds no key for EdDSA`},
		{"Ed25519 key for ES256", "a=ES256:@ed.pem", `JWT key "a": its file holds no key for ES256`},
		{"P-384 for ES256", "a=ES256:@p384.pem", `JWT key "a": ES256 needs a key on the curve P-256`},
	} {
		t.Run(row.name, func(t *testing.T) {
			keys, err := ParseJWTKeys(row.text, readFile)
			if err == nil || !strings.HasPrefix(err.Error(), row.want) || keys != nil {
				t.Fatalf("error %v, want %s", err, row.want)
			}
			for _, secret := range []string{secretA[:31], secretB[:31], "mysecret", "bXlzZWNyZXQ"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the error repeats a secret: %v", err)
				}
			}
		})
	}
}

func TestParseJWTKeysWrapsTheCause(t *testing.T) {
	if _, err := ParseJWTKeys("a=RS256:@missing", readKeyFile(t)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v does not wrap %v", err, fs.ErrNotExist)
	}
}

func TestParseJWTKeysCounts(t *testing.T) {
	for text, want := range map[string]int{
		"":                      0,
		" \n":                   0,
		"a=HS256:" + secretA:    1,
		"a=HS256:=:@" + secretA: 1,
		" 2026-01_x.y~z+/@w=HS256:" + secretA + " , b=EdDSA:@ed.pem ": 2,
	} {
		if keys := mustKeys(t, text); keys.Len() != want {
			t.Errorf("%q: %d keys, want %d", text, keys.Len(), want)
		}
	}
}

// Keys are parts of structures that a debugging log line may print.
func TestJWTKeysDoNotPrintSecrets(t *testing.T) {
	v := verifier(t, "a=HS256:"+secretA)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, value := range []any{*v.keys, v.keys.byID["a"], v.keys.byID} {
			text := fmt.Sprintf(verb, value)
			if strings.Contains(text, secretA) || strings.Contains(text, "97 97") || strings.Contains(text, "6161") || strings.Contains(text, "0x61, 0x61") {
				t.Errorf("%s prints the secret: %s", verb, text)
			}
		}
	}
}

func FuzzParseJWTKeys(f *testing.F) {
	f.Add("a=HS256:" + secretA + ",b=RS256:@rsa.pem")
	f.Add("a=HS256:@rsa.pem")
	f.Add("=:,")
	readFile := readKeyFile(f)
	f.Fuzz(func(t *testing.T, text string) {
		keys, err := ParseJWTKeys(text, readFile)
		switch {
		case (err == nil) != (keys != nil):
			t.Fatalf("keys %v, error %v", keys, err)
		case err == nil && keys.Len() != len(splitList(text)):
			t.Fatalf("%d keys of %q", keys.Len(), text)
		case err != nil && strings.ContainsAny(err.Error(), "\n\r"):
			t.Fatalf("the error has several lines: %q", err)
		}
	})
}

func FuzzPublicKey(f *testing.F) {
	for _, data := range keyFiles(f) {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := publicKey(data)
		if err == nil && strings.Contains(fmt.Sprintf("%T", key), "PrivateKey") {
			t.Fatalf("accepted a %T", key)
		}
	})
}
