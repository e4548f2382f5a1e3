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

// KeySetSource returns a JSON Web Key Set (RFC 7517, section 5). If renew is set,
// the set must be at most a few seconds old; otherwise a cached one will do. It
// returns when ctx ends.
type KeySetSource func(ctx context.Context, renew bool) ([]byte, error)

// JWKSOptions configures a JWKS. The zero value works.
type JWKSOptions struct {
	Every   time.Duration    // age after which the set is fetched again; default 1 min
	Unknown time.Duration    // least time between fetches for unknown key ids; default 10 s
	Keep    time.Duration    // how long a set is used while the source fails; default 1 h
	Budget  time.Duration    // timeout of one fetch; default 3 s
	Now     func() time.Time // default: time.Now
}

// JWKS holds the keys that an issuer publishes and rotates. It is safe for
// concurrent use.
type JWKS struct {
	// Static after construction.
	source KeySetSource
	o      JWKSOptions

	asking chan struct{} // holds one token while the source is asked; taken before mu; never closed

	mu      sync.Mutex
	keys    map[string]jwtKey // guarded by mu; the map itself is never modified
	got     time.Time         // guarded by mu; when the source last answered
	tried   time.Time         // guarded by mu; when the source was last asked
	failed  error             // guarded by mu; the outcome of that
	renewed time.Time         // guarded by mu; when the source was last asked for an unknown key id
}

// NewJWKS returns the keys that source publishes. The first token starts the
// first fetch.
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
	return &JWKS{source: source, o: o, asking: make(chan struct{}, 1)}
}

// retry is the least time between fetches from a source that fails.
const retry = time.Second

// key returns the key with that id, and fetches a newer set if the current one
// has none. It returns ErrUnavailable if the source fails or ctx ends first.
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

// current returns the keys and refreshes them if that is due. One request fetches;
// the others wait for it only if they have no keys to use meanwhile.
func (j *JWKS) current(ctx context.Context) (map[string]jwtKey, error) {
	keys, due := j.look()
	if !due {
		return j.usable(keys)
	}
	if keys != nil {
		select {
		case j.asking <- struct{}{}:
		default:
			return keys, nil
		}
	} else if err := j.startAsking(ctx); err != nil {
		return nil, err
	}
	defer j.stopAsking()
	if _, due = j.look(); due { // no other request has fetched meanwhile
		j.ask(ctx, false)
	}
	keys, _ = j.look()
	return j.usable(keys)
}

// startAsking waits until no other request asks the source, or ctx ends.
func (j *JWKS) startAsking(ctx context.Context) error {
	select {
	case j.asking <- struct{}{}:
		return nil
	case <-ctx.Done():
		return noKeySet(ctx.Err())
	}
}

func (j *JWKS) stopAsking() { <-j.asking }

func (j *JWKS) usable(keys map[string]jwtKey) (map[string]jwtKey, error) {
	if keys == nil {
		return nil, errNoKeySet
	}
	return keys, nil
}

// look returns the keys, nil if they are older than Keep, and whether a fetch is due.
func (j *JWKS) look() (keys map[string]jwtKey, due bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := j.o.Now()
	if now.Sub(j.got) < j.o.Keep {
		keys = j.keys
	}
	return keys, now.Sub(j.got) >= j.o.Every && now.Sub(j.tried) >= retry
}

// renew fetches a newer set. Within Unknown of the last time it returns that
// fetch's outcome instead.
func (j *JWKS) renew(ctx context.Context) (map[string]jwtKey, error) {
	if err := j.startAsking(ctx); err != nil {
		return nil, err
	}
	defer j.stopAsking()
	if j.renewable() {
		j.ask(ctx, true)
		if ctx.Err() != nil {
			return nil, noKeySet(ctx.Err())
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.keys, j.failed
}

func (j *JWKS) renewable() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.o.Now().Sub(j.renewed) >= j.o.Unknown
}

// ask fetches a set. One without a usable key counts as a failure and changes no
// key. The caller holds asking. If ctx is canceled, the outcome is not kept: it says
// nothing about the source, which the next request asks. A deadline that passes counts
// as a failure, or each request would wait for a source that hangs.
func (j *JWKS) ask(ctx context.Context, renew bool) {
	fetch, cancel := context.WithTimeout(ctx, j.o.Budget)
	defer cancel()
	text, err := j.source(fetch, renew)
	if err != nil && errors.Is(ctx.Err(), context.Canceled) {
		return
	}
	var keys map[string]jwtKey
	if err == nil {
		keys, err = parseKeySet(text)
	}
	now := j.o.Now()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.tried, j.failed = now, nil
	if renew {
		j.renewed = now
	}
	if err != nil {
		j.failed = noKeySet(err)
		return
	}
	j.keys, j.got = keys, now
}

var errNoKeySet = &refusal{kind: ErrUnavailable, detail: "the keys of tokens are not available now"}

func noKeySet(cause error) error {
	return &refusal{kind: ErrUnavailable, detail: errNoKeySet.detail, cause: cause}
}

// CheckKeySet returns an error if text is not a JSON Web Key Set with at least one
// key that can verify tokens.
func CheckKeySet(text []byte) error {
	_, err := parseKeySet(text)
	return err
}

// parseKeySet returns the keys that can verify tokens and ignores the others,
// because a set may also hold keys for other purposes (RFC 7517, section 5).
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

// parseJWK binds a key to one algorithm: the one that it names, or the only one
// allowed for its type. It refuses symmetric keys, because a published key is not
// secret, and keys whose private half is published too.
func parseJWK(raw json.RawMessage) (id string, _ jwtKey, err error) {
	var m jwkset.JWKMarshal
	if err := json.Unmarshal(raw, &m); err != nil {
		return "", jwtKey{}, err
	}
	signs := (m.USE == "" || m.USE == jwkset.UseSig) && (len(m.KEYOPS) == 0 || slices.Contains(m.KEYOPS, jwkset.KeyOpsVerify))
	if !signs || m.KTY == jwkset.KtyOct || m.D != "" || m.KID == "" || len(m.KID) > maxKeyIDBytes {
		return "", jwtKey{}, errJWK
	}
	// Certificates are not verified, and their URLs are never fetched.
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
