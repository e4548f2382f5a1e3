package auth

import (
	"errors"
	"strings"
)

// Reasons why a request is refused, with the HTTP status of each. Each error this
// package returns for a request is exactly one of these (errors.Is); see Detail.
var (
	// ErrNoCredentials: the request holds no credentials. 401.
	ErrNoCredentials = errors.New("no credentials")
	// ErrCredentials: the credential is malformed, unknown or expired. 401.
	ErrCredentials = errors.New("bad credentials")
	// ErrTwoUsers: the request holds valid credentials of two different users. 400.
	ErrTwoUsers = errors.New("credentials of two users")
	// ErrScope: the credentials are good but do not allow this. 403.
	ErrScope = errors.New("insufficient scope")
	// ErrUnavailable: the session store or the key set is unavailable, so the
	// credentials cannot be checked. 503, never "not logged in".
	ErrUnavailable = errors.New("credentials cannot be checked")
	// ErrNoOrigin: an Origin is required and there is none. 403.
	ErrNoOrigin = errors.New("no origin")
	// ErrOrigin: the Origin is not one that is allowed. 403.
	ErrOrigin = errors.New("origin not allowed")
	// ErrTwoOrigins: there are several Origin headers. 400.
	ErrTwoOrigins = errors.New("several origins")
)

// refusal is the type of all errors that a request can cause.
type refusal struct {
	kind   error  // one of the above
	detail string // may be shown to anyone: fixed text, nothing of the request in it
	scope  Scopes // what was lacking; 0 unless kind is ErrScope
	cause  error  // for the log only; nil if there is none
}

func refuse(kind error, detail string) error {
	return &refusal{kind: kind, detail: detail}
}

func (r *refusal) Error() string {
	text := r.kind.Error() + ": " + r.detail
	if r.cause != nil {
		text += ": " + r.cause.Error()
	}
	return text
}

func (r *refusal) Unwrap() []error {
	if r.cause == nil {
		return []error{r.kind}
	}
	return []error{r.kind, r.cause}
}

// Detail returns a short, stable text for an HTTP answer. It holds nothing of the
// request. "" if err is not of this package.
func Detail(err error) string {
	var r *refusal
	if errors.As(err, &r) {
		return r.detail
	}
	return ""
}

// Challenge returns the value of WWW-Authenticate for err (RFC 6750, section 3): bare
// without credentials, with error and error_description for bad or insufficient ones,
// and "" if err needs no challenge.
func Challenge(err error) string {
	const bearer = `Bearer realm="herald"`
	var r *refusal
	if !errors.As(err, &r) {
		return ""
	}
	switch r.kind {
	case ErrNoCredentials:
		return bearer
	case ErrCredentials:
		return bearer + `, error="invalid_token", error_description="` + r.detail + `"`
	case ErrScope:
		return strings.Join([]string{bearer, `error="insufficient_scope"`,
			`error_description="` + r.detail + `"`, `scope="` + r.scope.String() + `"`}, ", ")
	}
	return ""
}
