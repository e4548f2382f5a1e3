package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"herald/auth"
	"herald/internal/janitor"
	"herald/sessions"
	"herald/sessions/foreign"
	"herald/stream"
)

// sessionSettings are pointers where "not set" differs from every value: some settings are
// refused with some formats.
type sessionSettings struct {
	SessionFormat   string         `enum:"herald,json,express" default:"herald" placeholder:"herald|json|express" help:"Who stores the sessions: this gateway; json: a program that writes JSON at session:<id>; express: express-session with connect-redis."`
	SessionTTL      *time.Duration `name:"session-ttl" placeholder:"24h" help:"Lifetime of a session after its last use (default 24h)."`
	SessionMaxAge   *time.Duration `placeholder:"720h" help:"Maximum lifetime of a session (default 720h)."`
	SessionCookie   *string        `placeholder:"NAME" help:"Name of the session cookie (default sid, with express connect.sid)."`
	SessionPrefix   *string        `placeholder:"TEXT" help:"json, express: prefix of the sessions' Redis keys (default session: or sess:)."`
	SessionUserPath *string        `placeholder:"PATH" help:"json, express: path of the user's id in a session (default userId or passport.user)."`
	SessionSecrets  *string        `placeholder:"SECRETS" help:"express: secrets that sign the cookie, comma-separated, 8 bytes or more each."`
	SessionSlide    onOff          `default:"off" placeholder:"on|off" help:"json, express: a use extends the session to the session TTL; off: sessions are only read."`
	SessionCheck    *time.Duration `placeholder:"30s" help:"json, express: interval of checks of all open connections' sessions, 1s to 30s (default 30s)."`
}

// sessionConfig holds the parsed sessionSettings.
type sessionConfig struct {
	ttl, maxAge time.Duration
	cookie      string

	format  foreign.Format // "" for sessions of the gateway
	foreign foreign.Options
	check   time.Duration
}

func (s sessionSettings) sessionConfig(c config) (sessionConfig, error) {
	out := sessionConfig{
		ttl: given(s.SessionTTL, 24*time.Hour), maxAge: given(s.SessionMaxAge, 30*24*time.Hour),
		cookie: given(s.SessionCookie, "sid"), check: given(s.SessionCheck, 30*time.Second),
	}
	if s.SessionFormat != "herald" {
		out.format = foreign.Format(s.SessionFormat)
	}
	if out.format == foreign.Express && s.SessionCookie == nil {
		out.cookie = "connect.sid"
	}
	own, other, express := out.format == "", out.format != "", out.format == foreign.Express
	slide := other && bool(s.SessionSlide)
	for _, k := range []struct {
		setting string
		given   bool
		only    string // what it requires; "" if that is given
		check   func() error
	}{
		{"HERALD_SESSION_FORMAT", true, unless(own || !c.embedded, "with REDIS_URL: no other program writes sessions to the embedded Redis"), nil},
		{"HERALD_DEMO", c.Demo == "on", unless(own, "with HERALD_SESSION_FORMAT=herald: its log-in creates sessions"), nil},
		{"HERALD_SESSION_TTL", s.SessionTTL != nil, unless(own || slide, "with HERALD_SESSION_FORMAT=herald or HERALD_SESSION_SLIDE=on"), func() error { return atLeast(out.ttl, time.Second) }},
		{"HERALD_SESSION_MAX_AGE", s.SessionMaxAge != nil, unless(own, "with HERALD_SESSION_FORMAT=herald"), func() error { return atLeast(out.maxAge, time.Second) }},
		{"HERALD_SESSION_COOKIE", s.SessionCookie != nil, "", func() error { return cookieName(out.cookie) }},
		{"HERALD_SESSION_PREFIX", s.SessionPrefix != nil, unless(other, "with HERALD_SESSION_FORMAT=json or express"), func() error { return keyPrefix(*s.SessionPrefix) }},
		{"HERALD_SESSION_USER_PATH", s.SessionUserPath != nil, unless(other, "with HERALD_SESSION_FORMAT=json or express"), func() error { return userPath(*s.SessionUserPath) }},
		{"HERALD_SESSION_SECRETS", s.SessionSecrets != nil || express, unless(express, "with HERALD_SESSION_FORMAT=express"), func() (err error) { out.foreign.Secrets, err = secrets(given(s.SessionSecrets, "")); return }},
		{"HERALD_SESSION_SLIDE", bool(s.SessionSlide), unless(other, "with HERALD_SESSION_FORMAT=json or express: a use always extends our own"), nil},
		{"HERALD_SESSION_CHECK", s.SessionCheck != nil, unless(other, "with HERALD_SESSION_FORMAT=json or express"), func() error { return within(out.check, time.Second, 30*time.Second) }},
	} {
		if !k.given {
			continue
		}
		if k.only != "" {
			return sessionConfig{}, fmt.Errorf("%s: makes sense only %s", k.setting, k.only)
		}
		if k.check != nil {
			if err := k.check(); err != nil {
				return sessionConfig{}, fmt.Errorf("%s: %w", k.setting, err)
			}
		}
	}
	out.foreign.Prefix, out.foreign.UserPath = given(s.SessionPrefix, ""), given(s.SessionUserPath, "")
	if slide {
		out.foreign.Slide = out.ttl
	}
	return out, nil
}

func given[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

func unless(fits bool, otherwise string) string {
	if fits {
		return ""
	}
	return otherwise
}

func within(d, least, most time.Duration) error {
	if d < least || d > most {
		return fmt.Errorf("must be from %v to %v, not %v", least, most, d)
	}
	return nil
}

// keyPrefix refuses an empty prefix, with which every key would be a session.
func keyPrefix(s string) error {
	if s == "" || len(s) > 128 || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return errors.New("must be 1 to 128 characters of ASCII without spaces")
	}
	return nil
}

func userPath(s string) error {
	for name := range strings.SplitSeq(s, ".") {
		if name == "" {
			return fmt.Errorf("must be names joined by dots, such as passport.user, not %q", s)
		}
	}
	return nil
}

// secrets never quotes a secret in an error.
func secrets(s string) ([]string, error) {
	if s == "" {
		return nil, errors.New("the secret that signs the cookie is required")
	}
	list := strings.Split(s, ",")
	for i, secret := range list {
		if len(secret) < foreign.MinSecret {
			return nil, fmt.Errorf("secret %d of %d is shorter than %d bytes", i+1, len(list), foreign.MinSecret)
		}
	}
	return list, nil
}

// sessionStore is the store that keeps the sessions, and how the gateway uses it.
type sessionStore struct {
	store     stream.Sessions
	use, peek auth.SessionLookup
	chores    []janitor.Chore
	events    map[string]func(channel, event string) // by the pattern to subscribe to
	report    func(context.Context)                  // logs how the end of a session is noticed
}

func (g *gateway) newSessions() sessionStore {
	if g.cfg.sessions.format != "" {
		return g.foreignSessions()
	}
	c := g.cfg.sessions
	store := sessions.New(g.shared, sessions.Options{TTL: c.ttl, MaxAge: c.maxAge, Budget: g.budget})
	return sessionStore{
		store: store, use: lookup(store.Use), peek: lookup(peekByID(store)),
		chores: []janitor.Chore{sweepSessions(store)}, report: func(context.Context) {},
	}
}

func (g *gateway) foreignSessions() sessionStore {
	c := g.cfg.sessions
	o := c.foreign
	o.Budget = g.budget
	store := foreign.New(g.shared, c.format, o)
	changed := func(channel, event string) {
		if handle, ok := store.Changed(channel, event); ok {
			g.server.Streams.SessionChanged(handle, store.Users(handle))
		}
	}
	return sessionStore{
		store: store, use: lookupForeign(store.Use), peek: lookupForeign(store.Peek),
		events: map[string]func(string, string){store.Pattern(g.commands.Options().DB): changed},
		report: func(ctx context.Context) { g.logNotifications(ctx, store) },
	}
}

// lookup converts a session for package auth.
func lookup(find func(context.Context, string) (sessions.Session, error)) auth.SessionLookup {
	return func(ctx context.Context, id string) (auth.Session, error) {
		s, err := find(ctx, id)
		return auth.Session{UserID: s.UserID, Handle: s.Handle, Expires: s.ExpiresAt}, noSession(err)
	}
}

func lookupForeign(find func(context.Context, string) (foreign.Session, error)) auth.SessionLookup {
	return func(ctx context.Context, cookie string) (auth.Session, error) {
		s, err := find(ctx, cookie)
		return auth.Session{UserID: s.UserID, Handle: s.Handle, Expires: s.ExpiresAt}, noSession(err)
	}
}

func noSession(err error) error {
	if errors.Is(err, sessions.ErrNotFound) {
		return auth.ErrNoSession
	}
	return err
}

func peekByID(store *sessions.Store) func(context.Context, string) (sessions.Session, error) {
	return func(ctx context.Context, id string) (sessions.Session, error) {
		if !sessions.ValidID(id) {
			return sessions.Session{}, sessions.ErrNotFound
		}
		return store.Peek(ctx, sessions.Handle(id))
	}
}

// logNotifications logs how the end of another program's session is noticed: at once by
// keyspace notifications, or at the next check.
func (g *gateway) logNotifications(ctx context.Context, store *foreign.Store) {
	notifications := "on"
	switch on, err := store.Notified(ctx); {
	case err != nil:
		notifications = "unknown: " + cause(err).Error()
	case !on:
		notifications = "off"
	}
	c := g.cfg.sessions
	g.log.Info("sessions are another program's", "format", c.format, "notifications", notifications, "check", c.check)
}
