package auth

import (
	"context"
	"errors"
	"slices"
	"time"

	"herald/notify"
)

// Credential is what stands in one of the places of a request where a
// credential may stand. The zero value: nothing.
type Credential struct {
	Value   string
	Present bool  // tells an empty credential, which is bad, from none
	Err     error // what is wrong with the place itself; such a credential is present, and bad
}

// Given makes a Credential of what ParseBearer, CookieValue or QueryToken
// return: Given(ParseBearer(values)).
func Given(value string, present bool, err error) Credential {
	return Credential{Value: value, Present: present || err != nil, Err: err}
}

// Credentials are all that a browser's request offers, in order of precedence.
type Credentials struct {
	Bearer      Credential // Authorization: Bearer <JWT>
	Cookie      Credential // the session cookie: a secret session id
	Query       Credential // ?token=<JWT>
	Subprotocol Credential // bearer.<JWT> among the WebSocket subprotocols
}

// ErrNoSession is what a SessionLookup returns, possibly wrapped, if there is no
// such session: never created, over or revoked.
var ErrNoSession = errors.New("no such session")

// Session is what auth needs to know of a session.
type Session struct {
	UserID  string
	Handle  string    // names the session without being able to use it
	Expires time.Time // when it ends unless it is used again; zero: never
}

// SessionLookup finds a session by its secret id. Any error that is not
// ErrNoSession means that nobody knows: the request is answered with
// ErrUnavailable.
type SessionLookup func(ctx context.Context, id string) (Session, error)

var (
	errNothing     = refuse(ErrNoCredentials, "no credentials")
	errUnknownKey  = refuse(ErrCredentials, "unknown API key")
	errSession     = refuse(ErrCredentials, "session unknown or over")
	errSessionUser = refuse(ErrCredentials, "session has no valid user id")
	errTwoUsers    = refuse(ErrTwoUsers, "credentials of two different users")
)

// Authenticator turns what a request offers into a Principal. It is safe for
// concurrent use as far as its lookups are.
type Authenticator struct {
	keys   *APIKeys
	tokens *Verifier
	use    SessionLookup
	peek   SessionLookup
}

// NewAuthenticator takes the accepted keys and tokens and two ways of finding a
// session: use, which counts as using it and extends its life, and peek, which
// changes nothing. All four are required.
func NewAuthenticator(keys *APIKeys, tokens *Verifier, use, peek SessionLookup) *Authenticator {
	return &Authenticator{keys: keys, tokens: tokens, use: use, peek: peek}
}

// Authenticate says which user a browser's request is from. The first credential
// present decides, in the order Bearer, Cookie, Query, Subprotocol: if it is bad
// the answer is ErrCredentials, whatever the others are, and if it is a session
// that cannot be looked up, ErrUnavailable. API keys are nobody here.
//
// The others are looked at for one thing only: a valid one of another user is
// ErrTwoUsers, so that nobody acts as somebody else by a cookie or a link that
// was planted on them. One that is bad or cannot be checked is ignored; while
// Redis hangs, that takes as long as peek or ctx allow.
func (a *Authenticator) Authenticate(ctx context.Context, c Credentials) (Principal, error) {
	offers := c.present()
	if len(offers) == 0 {
		return Principal{}, errNothing
	}
	p, err := a.prove(ctx, offers[0], a.use)
	if err != nil {
		return Principal{}, err
	}
	for _, o := range offers[1:] {
		other, err := a.prove(ctx, o, a.peek)
		if err == nil && other.UserID != p.UserID {
			return Principal{}, errTwoUsers
		}
	}
	return p, nil
}

type offer struct {
	Credential
	session bool // a session id, otherwise a JWT
}

func (c Credentials) present() []offer {
	all := []offer{{c.Bearer, false}, {c.Cookie, true}, {c.Query, false}, {c.Subprotocol, false}}
	return slices.DeleteFunc(all, func(o offer) bool { return !o.Present })
}

func (a *Authenticator) prove(ctx context.Context, o offer, lookup SessionLookup) (Principal, error) {
	switch {
	case o.Err != nil:
		return Principal{}, o.Err
	case o.session:
		return sessionPrincipal(ctx, o.Value, lookup)
	}
	return a.tokens.Verify(ctx, o.Value)
}

// sessionPrincipal does not compare Expires with this node's clock: whether a
// session is over is for the lookup to say, by Redis's.
func sessionPrincipal(ctx context.Context, id string, lookup SessionLookup) (Principal, error) {
	if id == "" {
		return Principal{}, errSession
	}
	s, err := lookup(ctx, id)
	switch {
	case errors.Is(err, ErrNoSession):
		return Principal{}, errSession
	case err != nil:
		return Principal{}, &refusal{kind: ErrUnavailable, detail: "sessions cannot be checked now", cause: err}
	case !notify.ValidUserID(s.UserID):
		// Other programs write sessions too.
		return Principal{}, errSessionUser
	}
	return Principal{
		UserID: s.UserID, Name: s.UserID, Method: MethodSession,
		SessionHandle: s.Handle, Expires: s.Expires,
	}, nil
}

// Publisher says which backend a request is from and that it may do scope: by
// an API key, else by a JWT. ErrNoCredentials without a bearer, ErrCredentials
// if it is neither, ErrScope if it does not include scope.
func (a *Authenticator) Publisher(ctx context.Context, bearer Credential, scope Scopes) (Principal, error) {
	p, err := a.backend(ctx, bearer)
	if err != nil {
		return Principal{}, err
	}
	if !p.Has(scope) {
		return Principal{}, &refusal{kind: ErrScope, detail: "the scope " + scope.String() + " is required", scope: scope}
	}
	return p, nil
}

func (a *Authenticator) backend(ctx context.Context, bearer Credential) (Principal, error) {
	switch {
	case !bearer.Present:
		return Principal{}, errNothing
	case bearer.Err != nil:
		return Principal{}, bearer.Err
	}
	if p, ok := a.keys.Lookup(bearer.Value); ok {
		return p, nil
	}
	p, err := a.tokens.Verify(ctx, bearer.Value)
	if errors.Is(err, errNotAToken) {
		err = errUnknownKey
	}
	return p, err
}
