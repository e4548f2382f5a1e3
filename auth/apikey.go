package auth

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"strings"
)

const (
	maxKeyNameBytes  = 64
	minAPIKeySecret  = 16 // bytes
	maxAPIKeySecret  = 1024
	apiKeyForm       = "name:secret[:scope+scope]"
	apiKeySecretForm = "16 to 1024 visible ASCII characters, no comma and no colon"
)

// APIKeys is the set of configured API keys. The zero value is empty. It stores
// SHA-256 hashes instead of secrets, and is immutable after ParseAPIKeys.
type APIKeys struct {
	keys []apiKey
}

type apiKey struct {
	name   string
	sum    [sha256.Size]byte // of the secret
	scopes Scopes
}

// ParseAPIKeys parses a comma-separated list of name:secret[:scope+scope]. It
// ignores space around an entry. An empty text is an empty set. A key without a
// scope list has all scopes.
//
// ParseAPIKeys refuses:
//   - names that do not match [A-Za-z0-9._-]{1,64};
//   - secrets that are not 16 to 1024 visible ASCII characters without comma and colon;
//   - duplicate names and duplicate secrets;
//   - unknown scopes, and an empty scope list, which could be read as "all".
//
// An error contains the key's name, or its position if the name is invalid. It
// quotes nothing else: if a colon is missing or misplaced, any part may be the secret.
func ParseAPIKeys(text string) (*APIKeys, error) {
	k := new(APIKeys)
	for i, entry := range splitList(text) {
		key, err := parseAPIKey(entry)
		if err != nil && key.name == "" {
			return nil, fmt.Errorf("API key %d: %w", i+1, err)
		}
		if err == nil {
			err = k.add(key)
		}
		if err != nil {
			return nil, fmt.Errorf("API key %q: %w", key.name, err)
		}
	}
	return k, nil
}

// parseAPIKey parses one entry. If the name is valid, key.name is set even when
// err is not nil.
func parseAPIKey(entry string) (key apiKey, err error) {
	name, rest, ok := strings.Cut(entry, ":")
	if !ok {
		return key, fmt.Errorf("must have the form %s", apiKeyForm)
	}
	if !validKeyName(name) {
		return key, fmt.Errorf("its name must be 1 to %d characters of A-Z a-z 0-9 . _ -", maxKeyNameBytes)
	}
	key.name = name
	secret, scopes, limited := strings.Cut(rest, ":")
	if len(secret) < minAPIKeySecret || len(secret) > maxAPIKeySecret || !visible(secret) {
		return key, fmt.Errorf("its secret must be %s", apiKeySecretForm)
	}
	key.sum = sha256.Sum256([]byte(secret))
	key.scopes = ScopesAll
	if limited {
		key.scopes, err = parseScopes(scopes)
	}
	return key, err
}

func parseScopes(list string) (all Scopes, err error) {
	for name := range strings.SplitSeq(list, "+") {
		s := scopeNamed(name)
		if s == 0 {
			return 0, fmt.Errorf("its scopes must be some of %s, joined by + (and its secret cannot hold a colon)",
				strings.ReplaceAll(ScopesAll.String(), " ", ", "))
		}
		all |= s
	}
	return all, nil
}

func (k *APIKeys) add(key apiKey) error {
	for _, other := range k.keys {
		if other.name == key.name {
			return fmt.Errorf("its name is used twice")
		}
		if other.sum == key.sum {
			return fmt.Errorf("it has the same secret as %q", other.name)
		}
	}
	k.keys = append(k.keys, key)
	return nil
}

// Len returns the number of keys.
func (k *APIKeys) Len() int { return len(k.keys) }

// Lookup returns the principal of the key with the given secret, or false. It
// compares the hash with those of all keys, each in constant time. The duration
// therefore reveals neither how close a guess was nor which key it resembled.
func (k *APIKeys) Lookup(secret string) (Principal, bool) {
	sum := sha256.Sum256([]byte(secret))
	found := -1
	for i := range k.keys {
		same := subtle.ConstantTimeCompare(sum[:], k.keys[i].sum[:])
		found = subtle.ConstantTimeSelect(same, i, found)
	}
	if found < 0 {
		return Principal{}, false
	}
	key := &k.keys[found]
	return Principal{Name: key.name, Method: MethodAPIKey, Scopes: key.scopes}, true
}

func validKeyName(s string) bool {
	return len(s) > 0 && len(s) <= maxKeyNameBytes && only(s, func(c byte) bool {
		return isAlphanumeric(c) || c == '.' || c == '_' || c == '-'
	})
}
