package auth

import (
	"context"
	"errors"
	"slices"
	"time"

	"herald/notify"
)

// Credential is the content of one place of a request that may hold a credential,
// such as the Authorization header. The zero value: none.
type Credential struct {
	Value   string
	Present bool  // distinguishes an empty credential, which is bad, from none
	Err     error // set if the place is malformed; such a credential is present, and bad
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

// ErrNoSession is returned by a SessionLookup, possibly wrapped, if the session does
// not exist: never created, expired or revoked.
var ErrNoSession = errors.New("no such session")

// Session is the part of a session that auth uses.
type Session struct {
	UserID  string
	Handle  string    // identifies the session, but grants no access
	Expires time.Time // when it expires unless it is used again; zero: never
}

// SessionLookup finds a session by its secret id. Any error other than ErrNoSession
// means that the store is unavailable; the request gets ErrUnavailable.
type SessionLookup func(ctx context.Context, id string) (Session, error)

var (
	errNothing     = refuse(ErrNoCredentials, "no credentials")
	errUnknownKey  = refuse(ErrCredentials, "unknown API key")
	errSession     = refuse(ErrCredentials, "session unknown or over")
	errSessionUser = refuse(ErrCredentials, "session has no valid user id")
	errTwoUsers    = refuse(ErrTwoUsers, "credentials of two different users")
)

// Authenticator verifies a request's credentials and returns its Principal. It is safe
// for concurrent use if its lookups are.
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

// Authenticate returns the user that a browser's request is from. The first credential
// present decides, in the order Bearer, Cookie, Query, Subprotocol. If it is bad, the
// error is ErrCredentials; if its session cannot be looked up, ErrUnavailable; if
// there is none, ErrNoCredentials. API keys are not accepted.
//
// A valid further credential of another user is ErrTwoUsers: a planted cookie or
// link must not make a user act as another one. A further one that is bad or cannot
// be checked is ignored; while Redis hangs, that takes as long as peek or ctx allow.
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

// sessionPrincipal does not compare Expires with this node's clock: the lookup decides
// by the clock of Redis whether a session has expired.
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

// Publisher returns the backend that a request is from, proven by an API key or a JWT
// that includes scope. Errors: ErrNoCredentials without a bearer, ErrCredentials if it
// is neither, ErrScope if it does not include scope, ErrUnavailable if the JWT's key
// cannot be fetched.
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
