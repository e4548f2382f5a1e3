package auth

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

var errRedis = errors.New("dial tcp 127.0.0.1:6379: connection refused")

// lookups makes SessionLookups over fixed sessions and records their calls.
type lookups struct{ calls []string }

func (l *lookups) named(name string) SessionLookup {
	return func(_ context.Context, id string) (Session, error) {
		l.calls = append(l.calls, name+" "+id)
		switch id {
		case "s42", "s43":
			return Session{UserID: id[1:], Handle: "h" + id[1:], Expires: now.Add(time.Hour)}, nil
		case "foreign":
			return Session{UserID: "*", Handle: "hf"}, nil
		case "down":
			return Session{}, errRedis
		case "canceled":
			return Session{}, context.Canceled
		}
		return Session{}, fmt.Errorf("sessions: use: %w", ErrNoSession)
	}
}

func testAuthenticator(t testing.TB) (*Authenticator, *lookups) {
	keys, err := ParseAPIKeys("billing:aaaaaaaaaaaaaaaa:publish,ops:a.b.cccccccccccc")
	if err != nil {
		t.Fatal(err)
	}
	l := new(lookups)
	return NewAuthenticator(keys, verifier(t, "a=HS256:"+secretA), l.named("use"), l.named("peek")), l
}

func given(value string) Credential { return Given(value, true, nil) }

func TestAuthenticate(t *testing.T) {
	jwt42, jwt43 := given(hs256(t, claimsOf("42"))), given(hs256(t, claimsOf("43")))
	expired := given(hs256(t, `{"sub":"43","exp":1}`))
	malformed := Given(ParseBearer([]string{"Bearer"}))
	s42, s43, over, down := given("s42"), given("s43"), given("sX"), given("down")

	type C = Credentials
	for _, row := range []struct {
		name  string
		c     C
		want  error
		by    Method
		calls []string
	}{
		{"nothing", C{}, errNothing, "", nil},
		{"bearer", C{Bearer: jwt42}, nil, MethodJWT, nil},
		{"cookie", C{Cookie: s42}, nil, MethodSession, []string{"use s42"}},
		{"query", C{Query: jwt42}, nil, MethodJWT, nil},
		{"subprotocol", C{Subprotocol: jwt42}, nil, MethodJWT, nil},

		// The first credential present decides.
		{"bad bearer, good rest", C{expired, s42, jwt42, jwt42}, errExpired, "", nil},
		{"malformed bearer, good rest", C{malformed, s42, jwt42, jwt42}, errAuthorization, "", nil},
		{"API key as bearer", C{Bearer: given("aaaaaaaaaaaaaaaa"), Cookie: s42}, errNotAToken, "", nil},
		{"session over, good rest", C{Cookie: over, Query: jwt42, Subprotocol: jwt42}, errSession, "", []string{"use sX"}},
		{"empty cookie, good rest", C{Cookie: given(""), Query: jwt42}, errSession, "", nil},
		{"two cookies, good rest", C{Cookie: Given("", true, errTwoCookies), Query: jwt42}, errTwoCookies, "", nil},
		{"error without presence", C{Cookie: Given("", false, errTwoCookies), Query: jwt42}, errTwoCookies, "", nil},
		{"foreign session with a bad user id", C{Cookie: given("foreign")}, errSessionUser, "", []string{"use foreign"}},
		{"Redis down, good rest", C{Cookie: down, Query: jwt42}, ErrUnavailable, "", []string{"use down"}},
		{"client gone", C{Cookie: given("canceled")}, ErrUnavailable, "", []string{"use canceled"}},
		{"empty query, good subprotocol", C{Query: given(""), Subprotocol: jwt42}, errNotAToken, "", nil},
		{"session id as query", C{Query: s42}, errNotAToken, "", nil},
		{"JWT as cookie", C{Cookie: jwt42}, errSession, "", []string{"use " + jwt42.Value}},

		// Further credentials are refused only if they are of another user.
		{"all of one user", C{jwt42, s42, jwt42, jwt42}, nil, MethodJWT, []string{"peek s42"}},
		{"cookie and query of one user", C{Cookie: s42, Query: jwt42}, nil, MethodSession, []string{"use s42"}},
		{"bearer and another's cookie", C{Bearer: jwt42, Cookie: s43}, errTwoUsers, "", []string{"peek s43"}},
		{"bearer and another's query", C{Bearer: jwt42, Query: jwt43}, errTwoUsers, "", nil},
		{"bearer and another's subprotocol", C{Bearer: jwt42, Subprotocol: jwt43}, errTwoUsers, "", nil},
		{"cookie and another's query", C{Cookie: s42, Query: jwt43}, errTwoUsers, "", []string{"use s42"}},
		{"query and another's subprotocol", C{Query: jwt42, Subprotocol: jwt43}, errTwoUsers, "", nil},
		{"only the last is another's", C{jwt42, s42, jwt42, jwt43}, errTwoUsers, "", []string{"peek s42"}},
		{"secondary expired", C{Bearer: jwt42, Query: expired}, nil, MethodJWT, nil},
		{"secondary over", C{Bearer: jwt42, Cookie: over}, nil, MethodJWT, []string{"peek sX"}},
		{"secondary cannot be checked", C{Bearer: jwt42, Cookie: down}, nil, MethodJWT, []string{"peek down"}},
		{"secondary malformed", C{Cookie: s42, Subprotocol: Given("", true, errSubprotocol)}, nil, MethodSession, []string{"use s42"}},
		{"secondary empty", C{Bearer: jwt42, Cookie: given(""), Query: given("")}, nil, MethodJWT, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			a, l := testAuthenticator(t)
			p, err := a.Authenticate(context.Background(), row.c)
			if !errors.Is(err, row.want) {
				t.Fatalf("error %v, want %v", err, row.want)
			}
			if !slices.Equal(l.calls, row.calls) {
				t.Errorf("sessions looked up: %q, want %q", l.calls, row.calls)
			}
			if err != nil && p != (Principal{}) {
				t.Errorf("refused with the principal %+v", p)
			}
			if err == nil && (p.UserID != "42" || p.Name != "42" || p.Method != row.by) {
				t.Errorf("principal %+v, want user 42 by %v", p, row.by)
			}
		})
	}
}

func TestAuthenticateBySession(t *testing.T) {
	a, _ := testAuthenticator(t)
	p, err := a.Authenticate(context.Background(), Credentials{Cookie: given("s42")})
	want := Principal{UserID: "42", Name: "42", Method: MethodSession, SessionHandle: "h42", Expires: now.Add(time.Hour)}
	if err != nil || p != want {
		t.Errorf("principal %+v, %v; want %+v", p, err, want)
	}
}

func TestUnavailableKeepsItsCauseForTheLog(t *testing.T) {
	a, _ := testAuthenticator(t)
	_, err := a.Authenticate(context.Background(), Credentials{Cookie: given("down")})
	if !errors.Is(err, errRedis) || !strings.Contains(err.Error(), errRedis.Error()) {
		t.Errorf("%v does not wrap its cause", err)
	}
	if errors.Is(err, ErrCredentials) || Challenge(err) != "" {
		t.Errorf("%v is treated as bad credentials", err)
	}
	if strings.Contains(Detail(err), "127.0.0.1") {
		t.Errorf("the detail contains the cause: %s", Detail(err))
	}
}

func TestPublisher(t *testing.T) {
	const apiKey = "aaaaaaaaaaaaaaaa"
	expires := time.Unix(now.Unix()+3600, 0)
	for _, row := range []struct {
		name   string
		bearer Credential
		scope  Scopes
		want   error
		who    Principal
	}{
		{"nothing", Credential{}, ScopePublish, errNothing, Principal{}},
		{"malformed", Given(ParseBearer([]string{"Bearer a b"})), ScopePublish, errAuthorization, Principal{}},
		{"unknown key", given("aaaaaaaaaaaaaaab"), ScopePublish, errUnknownKey, Principal{}},
		{"empty", given(""), ScopePublish, errUnknownKey, Principal{}},
		{"API key", given(apiKey), ScopePublish, nil, Principal{Name: "billing", Method: MethodAPIKey, Scopes: ScopePublish}},
		{"API key that looks like a JWT", given("a.b.cccccccccccc"), ScopePresence, nil, Principal{Name: "ops", Method: MethodAPIKey, Scopes: ScopesAll}},
		{"API key lacks it", given(apiKey), ScopeSessions, ErrScope, Principal{}},
		{"API key lacks one of two", given(apiKey), ScopePublish | ScopeSessions, ErrScope, Principal{}},
		{"JWT", given(hs256(t, claimsOf("backend", `"scope":"publish"`))), ScopePublish, nil,
			Principal{UserID: "backend", Name: "backend", Method: MethodJWT, Scopes: ScopePublish, Expires: expires}},
		{"JWT lacks it", given(hs256(t, claimsOf("42"))), ScopePublish, ErrScope, Principal{}},
		{"JWT expired, scope or not", given(hs256(t, `{"sub":"42","exp":1,"scope":"publish"}`)), ScopePublish, errExpired, Principal{}},
		{"JWT forged", given(mint(t, jwt.SigningMethodHS256, []byte(secretB), `{"alg":"HS256"}`, claimsOf("42", `"scope":"publish"`))), ScopePublish, errSignature, Principal{}},
		{"session id instead of a token", given("s42"), ScopePublish, errUnknownKey, Principal{}},
	} {
		t.Run(row.name, func(t *testing.T) {
			a, l := testAuthenticator(t)
			p, err := a.Publisher(context.Background(), row.bearer, row.scope)
			if !errors.Is(err, row.want) || p != row.who {
				t.Errorf("%+v, %v; want %+v, %v", p, err, row.who, row.want)
			}
			if l.calls != nil {
				t.Errorf("sessions looked up: %q, want none", l.calls)
			}
		})
	}
}

func TestChallenge(t *testing.T) {
	a, _ := testAuthenticator(t)
	_, scope := a.Publisher(context.Background(), given("aaaaaaaaaaaaaaaa"), ScopeSessions)
	for _, row := range []struct {
		err  error
		want string
	}{
		{errNothing, `Bearer realm="herald"`},
		{errExpired, `Bearer realm="herald", error="invalid_token", error_description="token expired"`},
		{fmt.Errorf("ws: %w", errExpired), `Bearer realm="herald", error="invalid_token", error_description="token expired"`},
		{scope, `Bearer realm="herald", error="insufficient_scope", error_description="the scope sessions is required", scope="sessions"`},
		{errTwoUsers, ""},
		{errOrigin, ""},
		{errors.New("other"), ""},
		{nil, ""},
	} {
		if got := Challenge(row.err); got != row.want {
			t.Errorf("%v: %s, want %s", row.err, got, row.want)
		}
	}
}

// error_description allows only printable ASCII without quote and backslash (RFC
// 6750, section 3).
func TestDetailsFitTheChallenge(t *testing.T) {
	ok := regexp.MustCompile(`^[ !#-\[\]-~]+$`)
	for _, err := range []error{
		errTwoAuthorizations, errAuthorization, errTwoTokens, errTwoCookies, errCookie, errSubprotocol, errTwoSubprotocol,
		errJSON, errRepeated, errNoSubject, errSubject, errNoExpiry, errExpiry, errBadBefore, errBadIssued,
		errNotAToken, errTokenSize, errCritical, errTyp, errKeyID, errNoKeyID, errAlgorithm, errSignature,
		errExpired, errNotYet, errFromFuture, errIssuer, errAudience, errNoKeys,
		errNothing, errUnknownKey, errSession, errSessionUser, errTwoUsers, errNoOrigin, errOrigin, errTwoOrigins,
	} {
		if !ok.MatchString(Detail(err)) {
			t.Errorf("the detail %q is not allowed in error_description", Detail(err))
		}
	}
	if Detail(errors.New("password is hunter2")) != "" {
		t.Error("Detail returns the text of another package's error")
	}
}
