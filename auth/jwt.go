package auth

import (
	"context"
	"encoding/base64"
	"slices"
	"strings"
	"time"

	"herald/notify"
)

// maxTokenBytes bounds what is decoded for an unauthenticated client.
const maxTokenBytes = 8 << 10

var (
	errNotAToken  = refuse(ErrCredentials, "not a JWT")
	errTokenSize  = refuse(ErrCredentials, "token over 8192 bytes")
	errCritical   = refuse(ErrCredentials, "token demands extensions (crit)")
	errTyp        = refuse(ErrCredentials, "token is of another type (typ)")
	errKeyID      = refuse(ErrCredentials, "unknown key id")
	errNoKeyID    = refuse(ErrCredentials, "token names no key id")
	errAlgorithm  = refuse(ErrCredentials, "algorithm not allowed")
	errSignature  = refuse(ErrCredentials, "token signature is wrong")
	errExpired    = refuse(ErrCredentials, "token expired")
	errNotYet     = refuse(ErrCredentials, "token not valid yet")
	errFromFuture = refuse(ErrCredentials, "token issued in the future")
	errIssuer     = refuse(ErrCredentials, "token of another issuer")
	errAudience   = refuse(ErrCredentials, "token for another audience")
	errNoKeys     = refuse(ErrCredentials, "no JWT is accepted here")
)

var (
	tokenBase64 = base64.RawURLEncoding.Strict()
	headerTypes = []string{"jwt", "at+jwt"} // RFC 7519, 5.1; RFC 9068, 2.1
)

// Verifier verifies JWTs (RFC 7519). It is safe for concurrent use.
type Verifier struct {
	keys *JWTKeys
	opts VerifierOptions
}

// VerifierOptions are the settings of a Verifier. The zero value works.
type VerifierOptions struct {
	Issuer   string           // what iss must be; default: not checked
	Audience string           // what aud must be or hold; default: not checked
	JWKS     *JWKS            // further keys, used if no given one has the key id; default: none
	Now      func() time.Time // default: time.Now
}

// NewVerifier returns a Verifier for tokens signed with one of keys.
func NewVerifier(keys *JWTKeys, opts VerifierOptions) *Verifier {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return &Verifier{keys: keys, opts: opts}
}

// Verify returns the Principal of a valid token. Errors: ErrCredentials if the token
// is not valid, ErrUnavailable if its key cannot be fetched now. It parses the compact
// form itself and uses only the signature algorithms of golang-jwt. That parser
// cannot refuse a trailing newline, repeated members, crit, other typs or a missing
// sub, and decodes the claims before it has checked the signature.
//
// Header fields that offer keys (jwk, jku, x5c, x5u) are never followed. There
// is no leeway: a token is good from nbf and iat, included, to exp, excluded.
func (v *Verifier) Verify(ctx context.Context, token string) (Principal, error) {
	signed, header, claims, signature, err := splitToken(token)
	if err != nil {
		return Principal{}, err
	}
	key, err := v.key(ctx, header)
	if err != nil {
		return Principal{}, err
	}
	if key.check(signed, signature) != nil {
		return Principal{}, errSignature
	}
	o, err := readObject(claims)
	if err != nil {
		return Principal{}, err
	}
	return v.principal(o)
}

// splitToken decodes the JWS compact serialization (RFC 7515, 7.1). Every token
// it accepts has exactly one spelling: Go's base64 skips newlines and, unless it
// is strict, ignores trailing bits.
func splitToken(token string) (signed string, header, claims, signature []byte, err error) {
	if len(token) > maxTokenBytes {
		return "", nil, nil, nil, errTokenSize
	}
	if strings.Count(token, ".") != 2 || !only(token, isTokenByte) {
		return "", nil, nil, nil, errNotAToken
	}
	first, last := strings.IndexByte(token, '.'), strings.LastIndexByte(token, '.')
	header, err1 := tokenBase64.DecodeString(token[:first])
	claims, err2 := tokenBase64.DecodeString(token[first+1 : last])
	signature, err3 := tokenBase64.DecodeString(token[last+1:])
	if err1 != nil || err2 != nil || err3 != nil {
		return "", nil, nil, nil, errNotAToken
	}
	return token[:last], header, claims, signature, nil
}

func isTokenByte(c byte) bool {
	return isAlphanumeric(c) || c == '-' || c == '_' || c == '.'
}

// key picks the one key that a token with that header may be signed with.
func (v *Verifier) key(ctx context.Context, header []byte) (jwtKey, error) {
	o, err := readObject(header)
	if err != nil {
		return jwtKey{}, err
	}
	if _, critical := o["crit"]; critical {
		return jwtKey{}, errCritical // RFC 7515, 4.1.11: none of them is understood here
	}
	if !allowedType(o) {
		return jwtKey{}, errTyp
	}
	key, err := v.keyByID(ctx, o)
	if err != nil {
		return jwtKey{}, err
	}
	if alg, ok := o.text("alg"); !ok || alg != key.alg {
		return jwtKey{}, errAlgorithm
	}
	return key, nil
}

// allowedType keeps out tokens that the same issuer signs for other purposes,
// such as logout+jwt (RFC 8725, 3.11).
func allowedType(o object) bool {
	if _, present := o["typ"]; !present {
		return true
	}
	typ, ok := o.text("typ")
	return ok && slices.Contains(headerTypes, strings.ToLower(typ))
}

func (v *Verifier) keyByID(ctx context.Context, o object) (jwtKey, error) {
	if v.keys.Len() == 0 && v.opts.JWKS == nil {
		return jwtKey{}, errNoKeys
	}
	if _, named := o["kid"]; !named {
		key, ok := v.keys.sole()
		if !ok || v.opts.JWKS != nil {
			return jwtKey{}, errNoKeyID
		}
		return key, nil
	}
	id, _ := o.text("kid") // no key has the id ""
	key, ok := v.keys.byID[id]
	if !ok && v.opts.JWKS != nil && len(id) <= maxKeyIDBytes {
		return v.opts.JWKS.key(ctx, id)
	}
	if !ok {
		return jwtKey{}, errKeyID
	}
	return key, nil
}

// principal checks the claims of a token whose signature was right.
func (v *Verifier) principal(o object) (Principal, error) {
	expires, err := v.checkDates(o)
	if err != nil {
		return Principal{}, err
	}
	if iss, _ := o.text("iss"); v.opts.Issuer != "" && iss != v.opts.Issuer {
		return Principal{}, errIssuer
	}
	if v.opts.Audience != "" && !slices.Contains(o.texts("aud"), v.opts.Audience) {
		return Principal{}, errAudience
	}
	if _, present := o["sub"]; !present {
		return Principal{}, errNoSubject
	}
	sub, _ := o.text("sub")
	if !notify.ValidUserID(sub) {
		return Principal{}, errSubject
	}
	return Principal{UserID: sub, Name: sub, Method: MethodJWT, Scopes: o.scopes(), Expires: expires}, nil
}

func (v *Verifier) checkDates(o object) (expires time.Time, err error) {
	now := v.opts.Now()
	if _, present := o["exp"]; !present {
		return time.Time{}, errNoExpiry
	}
	expires, ok := o.date("exp")
	switch {
	case !ok:
		return time.Time{}, errExpiry
	case !now.Before(expires):
		return time.Time{}, errExpired
	}
	notBefore, ok := o.date("nbf")
	switch {
	case !ok:
		return time.Time{}, errBadBefore
	case now.Before(notBefore):
		return time.Time{}, errNotYet
	}
	issued, ok := o.date("iat")
	switch {
	case !ok:
		return time.Time{}, errBadIssued
	case now.Before(issued):
		return time.Time{}, errFromFuture
	}
	return expires, nil
}
