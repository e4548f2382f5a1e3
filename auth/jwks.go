package auth

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
)

// KeySetSource returns a JSON Web Key Set (RFC 7517, 5). renew asks for one that
// is not older than a few seconds; otherwise any that is not out of date will do.
type KeySetSource func(ctx context.Context, renew bool) ([]byte, error)

// JWKSOptions of a JWKS. The zero value works.
type JWKSOptions struct {
	Every   time.Duration    // how often the source is asked whether the set has changed; default 1 min
	Unknown time.Duration    // how often, at the most, an unknown key id makes it ask for a newer one; default 10 s
	Keep    time.Duration    // for how long a set is good while the source fails; default 1 h
	Budget  time.Duration    // the longest that a request waits for the source; default 3 s
	Now     func() time.Time // default: time.Now
}

// JWKS are keys that somebody else publishes and changes. It is safe for
// concurrent use.
type JWKS struct {
	// Static after construction.
	source KeySetSource
	o      JWKSOptions

	asking sync.Mutex // held while the source is asked; taken before mu

	mu      sync.Mutex
	keys    map[string]jwtKey // guarded by mu; never changes once it is here
	got     time.Time         // guarded by mu; when the source last answered
	tried   time.Time         // guarded by mu; when it was last asked
	failed  error             // guarded by mu; what became of that
	renewed time.Time         // guarded by mu; when it was last asked because of an unknown key id
}

// NewJWKS returns keys from source, which is not asked before the first token.
func NewJWKS(source KeySetSource, o JWKSOptions) *JWKS {
	for _, d := range []struct {
		field     *time.Duration
		otherwise time.Duration
	}{{&o.Every, time.Minute}, {&o.Unknown, 10 * time.Second}, {&o.Keep, time.Hour}, {&o.Budget, 3 * time.Second}} {
		if *d.field <= 0 {
			*d.field = d.otherwise
		}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &JWKS{source: source, o: o}
}

// retry is how soon a source that failed is asked again.
const retry = time.Second

// key finds a key by its id. One that is not in the set may be newer than the
// set. ErrUnavailable: the source fails, so nobody can say.
func (j *JWKS) key(ctx context.Context, id string) (jwtKey, error) {
	keys, err := j.current(ctx)
	if err != nil {
		return jwtKey{}, err
	}
	if key, ok := keys[id]; ok {
		return key, nil
	}
	if keys, err = j.renew(ctx); err != nil {
		return jwtKey{}, err
	}
	key, ok := keys[id]
	if !ok {
		return jwtKey{}, errKeyID
	}
	return key, nil
}

// current asks the source if it is time. Only one request at a time does so, and
// the others wait only if there is nothing they could use.
func (j *JWKS) current(ctx context.Context) (map[string]jwtKey, error) {
	keys, due := j.look()
	if !due {
		return j.usable(keys)
	}
	if keys == nil {
		j.asking.Lock()
	} else if !j.asking.TryLock() {
		return keys, nil
	}
	defer j.asking.Unlock()
	if keys, due = j.look(); due { // another may have asked while this one waited
		j.ask(ctx, false)
		keys, _ = j.look()
	}
	return j.usable(keys)
}

func (j *JWKS) usable(keys map[string]jwtKey) (map[string]jwtKey, error) {
	if keys == nil {
		return nil, errNoKeySet
	}
	return keys, nil
}

// look returns the keys, nil if they are out of date, and whether to ask for others.
func (j *JWKS) look() (keys map[string]jwtKey, due bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := j.o.Now()
	if now.Sub(j.got) < j.o.Keep {
		keys = j.keys
	}
	return keys, now.Sub(j.got) >= j.o.Every && now.Sub(j.tried) >= retry
}

// renew asks the source for a newer set, unless that was done a moment ago: then
// the answer is what it was.
func (j *JWKS) renew(ctx context.Context) (map[string]jwtKey, error) {
	j.asking.Lock()
	defer j.asking.Unlock()
	now := j.o.Now()
	j.mu.Lock()
	due := now.Sub(j.renewed) >= j.o.Unknown
	if due {
		j.renewed = now
	}
	j.mu.Unlock()
	if due {
		j.ask(ctx, true)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.keys, j.failed
}

// ask is called with asking held. A set without a usable key changes nothing.
func (j *JWKS) ask(ctx context.Context, renew bool) {
	ctx, cancel := context.WithTimeout(ctx, j.o.Budget)
	defer cancel()
	text, err := j.source(ctx, renew)
	var keys map[string]jwtKey
	if err == nil {
		keys, err = parseKeySet(text)
	}
	now := j.o.Now()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.tried, j.failed = now, nil
	if err != nil {
		j.failed = &refusal{kind: ErrUnavailable, detail: errNoKeySet.detail, cause: err}
		return
	}
	j.keys, j.got = keys, now
}

var errNoKeySet = &refusal{kind: ErrUnavailable, detail: "the keys of tokens cannot be had now"}

// CheckKeySet refuses what holds no key that tokens could be verified with.
func CheckKeySet(text []byte) error {
	_, err := parseKeySet(text)
	return err
}

// parseKeySet takes the keys that are fit for verifying and leaves out the others:
// sets hold keys for other purposes too (RFC 7517, 5).
func parseKeySet(text []byte) (map[string]jwtKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, fmt.Errorf("not a JSON Web Key Set: %w", err)
	}
	keys := map[string]jwtKey{}
	for _, raw := range set.Keys {
		id, key, err := parseJWK(raw)
		if _, taken := keys[id]; err == nil && !taken {
			keys[id] = key
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("it holds no key that can be used: RS256 of 2048 bits or more, ES256 or EdDSA, with a kid, for signatures")
	}
	return keys, nil
}

var errJWK = errors.New("not a public key for signatures with a key id")

// parseJWK binds a key to one algorithm: the one it names, else the only one that
// is allowed for keys of its kind. A symmetric key is refused, because what is
// published is no secret; so is one whose private half was published.
func parseJWK(raw json.RawMessage) (id string, _ jwtKey, err error) {
	var m jwkset.JWKMarshal
	if err := json.Unmarshal(raw, &m); err != nil {
		return "", jwtKey{}, err
	}
	signs := (m.USE == "" || m.USE == jwkset.UseSig) && (len(m.KEYOPS) == 0 || slices.Contains(m.KEYOPS, jwkset.KeyOpsVerify))
	if !signs || m.KTY == jwkset.KtyOct || m.D != "" || m.KID == "" || len(m.KID) > maxKeyIDBytes {
		return "", jwtKey{}, errJWK
	}
	// Certificates prove nothing here, and their addresses are never followed.
	m.X5C, m.X5U, m.X5T, m.X5TS256 = nil, "", "", ""
	k, err := jwkset.NewJWKFromMarshal(m, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
	if err != nil {
		return "", jwtKey{}, err
	}
	key, err := boundKey(string(m.ALG), k.Key())
	return m.KID, key, err
}

func boundKey(alg string, public crypto.PublicKey) (jwtKey, error) {
	for _, method := range jwtMethods {
		if _, symmetric := method.(*jwt.SigningMethodHMAC); symmetric || alg != "" && alg != method.Alg() {
			continue
		}
		if material, err := suited(method, public); err == nil {
			return verifyingKey(method, material), nil
		}
	}
	return jwtKey{}, errJWK
}
