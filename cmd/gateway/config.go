package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"herald/auth"
	"herald/internal/fetch"
	"herald/internal/recipients"
	"herald/limiter"
)

// settings are the flags, and the HERALD_* variables of the same names.
type settings struct {
	Listen      string `placeholder:"HOST:PORT" help:"Address of the public listener (default :3000; with the embedded Redis 127.0.0.1:3000)."`
	AdminListen string `default:"127.0.0.1:3001" help:"Address of the dashboard, /metrics and pprof; off disables them. They have no authentication: use the loopback interface."`
	RedisURL    string `name:"redis-url" env:"REDIS_URL" placeholder:"URL" help:"redis://[user:pass@]host:port[/db] or rediss://… (default: an embedded Redis, whose data is lost on exit)."`

	APIKeys     string `name:"api-keys" placeholder:"KEYS" help:"API keys of backends: name:secret[:scope+scope], comma-separated. A secret has 16 bytes or more. Scopes: publish, sessions, presence; default all."`
	JWTKeys     string `name:"jwt-keys" placeholder:"KEYS" help:"Keys that verify JWTs: kid=ALG:secret or kid=ALG:@file.pem, comma-separated. HS256 HS384 HS512 RS256 ES256 EdDSA."`
	JWTIssuer   string `name:"jwt-issuer" placeholder:"TEXT" help:"Required iss of JWTs (default: not checked)."`
	JWTAudience string `name:"jwt-audience" placeholder:"TEXT" help:"Required aud of JWTs (default: not checked)."`

	JWKSURL string `name:"jwks-url" placeholder:"URL" help:"JSON Web Key Set with further keys for JWTs: RS256 ES256 EdDSA. Fetched every 5 minutes, and when a token has an unknown key id."`

	RecipientsURL     string        `name:"recipients-url" placeholder:"URL" help:"Where to fetch a recipient's preferences: https://app.example.com/users/{userId} (default: nothing is muted)."`
	RecipientsToken   string        `placeholder:"TEXT" help:"Bearer token for the recipients URL (default: none)."`
	RecipientsTTL     time.Duration `name:"recipients-ttl" default:"60s" help:"How long preferences are cached. For one more minute they are used while they are fetched again."`
	RecipientsTimeout time.Duration `default:"500ms" help:"How long a publish waits for preferences. After that it is delivered."`

	AllowedOrigins string `placeholder:"ORIGINS" help:"Sites whose pages may connect, comma-separated, such as https://app.example.com (default: the request's own host)."`
	TrustedProxies string `placeholder:"CIDRS" help:"Proxies whose X-Forwarded-For and X-Forwarded-Proto are trusted, comma-separated (default: none)."`
	PublishLimit   string `default:"1000/1m" help:"Maximum notifications of one API key in any window of that length; off: no limit."`
	ConnectLimit   string `default:"60/1m" help:"Maximum connection attempts of one client address in any window of that length; off: no limit."`

	LogLength    int           `name:"log-length" default:"1000" help:"Maximum stored notifications of one user."`
	LogRetention time.Duration `name:"log-retention" default:"168h" help:"How long notifications are stored."`

	WaitReplicas int           `placeholder:"N" default:"0" help:"Redis replicas that must store a notification before it is acknowledged."`
	WaitTimeout  time.Duration `default:"250ms" help:"How long to wait for replicas. After that the answer is 503."`

	Strict onOff `default:"off" placeholder:"on|off" help:"Refuse to start if the maxmemory-policy of Redis evicts sessions and logs; off: warn."`

	LockRedisURLs string `name:"lock-redis-urls" placeholder:"URLS" help:"Three or five independent Redis servers that vote on locks, comma-separated (default: only the main one)."`
	Janitor       string `default:"03:30" placeholder:"HH:MM" help:"Time of day, UTC, at which one node removes stale keys from Redis; off: never."`

	sessionSettings

	MaxConnectionsPerUser int           `default:"20" help:"Maximum connections of one user on this node; 0: no limit."`
	MaxConnections        int           `placeholder:"N" default:"0" help:"Maximum connections on this node (default: by the limit of open files)."`
	Ping                  time.Duration `default:"25s" help:"Interval of pings to a client. A client that is silent for 2.5 intervals is disconnected."`
	Drain                 time.Duration `default:"30s" help:"How long a stopping node takes to close its connections."`

	EventLoop string `enum:"auto,off" default:"auto" placeholder:"auto|off" help:"Event loops read all connections (Linux); off: one goroutine per connection, as on other systems."`
	Demo      string `enum:"auto,on,off" default:"auto" placeholder:"auto|on|off" help:"Demo pages, on which anyone can log in as anyone. auto: only with the embedded Redis."`
	LogFormat string `enum:"text,json,auto" default:"auto" placeholder:"text|json|auto" help:"Format of log lines on standard error; auto: text on a terminal, else JSON."`
	LogLevel  string `enum:"debug,info,warn,error" default:"info" placeholder:"LEVEL" help:"Minimum level of log lines: debug, info, warn or error."`
}

// config holds the parsed settings.
type config struct {
	settings
	embedded bool
	demo     bool

	apiKeys *auth.APIKeys
	demoKey string // the generated key's secret; "" if keys are configured
	jwtKeys *auth.JWTKeys
	origins auth.Origins
	proxies []netip.Prefix
	publish limiter.Limit
	connect limiter.Limit

	lockURLs  []string      // empty: the main Redis
	janitorAt time.Duration // since midnight UTC
	janitor   bool
	sessions  sessionConfig
}

// config parses and checks the settings. Its error names the bad setting.
func (s settings) config() (config, error) {
	c := config{settings: s, embedded: s.RedisURL == ""}
	c.demo = s.Demo == "on" || s.Demo == "auto" && c.embedded
	if c.Listen == "" {
		c.Listen = ":3000"
		if c.embedded {
			c.Listen = "127.0.0.1:3000"
		}
	}
	if c.embedded && c.APIKeys == "" {
		c.demoKey = randomHex(16)
		c.APIKeys = "demo:" + c.demoKey
	}
	checks := []struct {
		setting string
		check   func() error
	}{
		{"HERALD_LISTEN", func() error { return hostPort(c.Listen) }},
		{"HERALD_ADMIN_LISTEN", func() error { return hostPortOrOff(c.AdminListen) }},
		{"HERALD_API_KEYS", func() (err error) { c.apiKeys, err = auth.ParseAPIKeys(c.APIKeys); return }},
		{"HERALD_JWT_KEYS", func() (err error) { c.jwtKeys, err = auth.ParseJWTKeys(c.JWTKeys, os.ReadFile); return }},
		{"HERALD_JWKS_URL", func() error { return jwksURL(c.JWKSURL) }},
		{"HERALD_RECIPIENTS_URL", func() error { return recipientsURL(c.RecipientsURL) }},
		{"HERALD_RECIPIENTS_TTL", func() error { return atLeast(c.RecipientsTTL, time.Second) }},
		{"HERALD_RECIPIENTS_TIMEOUT", func() error { return atLeast(c.RecipientsTimeout, time.Millisecond) }},
		{"HERALD_ALLOWED_ORIGINS", func() (err error) { c.origins, err = auth.ParseOrigins(c.AllowedOrigins); return }},
		{"HERALD_TRUSTED_PROXIES", func() (err error) { c.proxies, err = limiter.ParsePrefixes(c.TrustedProxies); return }},
		{"HERALD_PUBLISH_LIMIT", func() (err error) { c.publish, err = limiter.ParseLimit(c.PublishLimit); return }},
		{"HERALD_CONNECT_LIMIT", func() (err error) { c.connect, err = limiter.ParseLimit(c.ConnectLimit); return }},
		{"HERALD_LOG_LENGTH", func() error { return atLeast(int64(c.LogLength), 1) }},
		{"HERALD_LOG_RETENTION", func() error { return atLeast(c.LogRetention, time.Second) }},
		{"HERALD_WAIT_REPLICAS", func() error { return waitReplicas(c) }},
		{"HERALD_WAIT_TIMEOUT", func() error { return atLeast(c.WaitTimeout, time.Millisecond) }},
		{"HERALD_LOCK_REDIS_URLS", func() (err error) { c.lockURLs, err = lockURLs(c.LockRedisURLs); return }},
		{"HERALD_JANITOR", func() (err error) { c.janitorAt, c.janitor, err = janitorAt(c.Janitor); return }},
		{"HERALD_MAX_CONNECTIONS_PER_USER", func() error { return atLeast(int64(c.MaxConnectionsPerUser), 0) }},
		{"HERALD_MAX_CONNECTIONS", func() error { return atLeast(int64(c.MaxConnections), 0) }},
		{"HERALD_PING", func() error { return atLeast(c.Ping, time.Second) }},
		{"HERALD_DRAIN", func() error { return atLeast(c.Drain, 0) }},
	}
	for _, k := range checks {
		if err := k.check(); err != nil {
			return config{}, fmt.Errorf("%s: %w", k.setting, err)
		}
	}
	var err error
	if c.sessions, err = c.sessionConfig(c); err != nil {
		return config{}, err
	}
	return c, nil
}

// requireKeys fails if nothing can authenticate. The doctor works without keys.
func (c config) requireKeys() error {
	if c.apiKeys.Len() == 0 && c.jwtKeys.Len() == 0 && c.JWKSURL == "" {
		return errors.New("HERALD_API_KEYS: with REDIS_URL set, keys must be configured here, in HERALD_JWT_KEYS or in HERALD_JWKS_URL")
	}
	return nil
}

// onOff is a switch: --flag, --flag=on or --flag=off.
type onOff bool

// IsBool allows the flag without a value.
func (onOff) IsBool() bool { return true }

// Decode implements kong.BoolMapperValue.
func (o *onOff) Decode(ctx *kong.DecodeContext) error {
	token := ctx.Scan.Pop()
	switch strings.ToLower(fmt.Sprint(token.Value)) {
	case "on", "true", "yes", "1":
		*o = true
	case "off", "false", "no", "0":
		*o = false
	default:
		return fmt.Errorf("must be on or off, not %q", token.Value)
	}
	return nil
}

func jwksURL(s string) error {
	if s == "" {
		return nil
	}
	return fetch.CheckURL(s)
}

func recipientsURL(s string) error {
	if s == "" {
		return nil
	}
	if err := recipients.CheckTemplate(s); err != nil {
		return err
	}
	return fetch.CheckURL(recipients.Address(s, "42"))
}

func waitReplicas(c config) error {
	if c.WaitReplicas > 0 && c.embedded {
		return errors.New("the embedded Redis has no replicas")
	}
	return atLeast(int64(c.WaitReplicas), 0)
}

func hostPort(s string) error {
	_, port, err := net.SplitHostPort(s)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil {
		return fmt.Errorf("must be host:port, not %q", s)
	}
	return nil
}

func hostPortOrOff(s string) error {
	if s == "off" {
		return nil
	}
	return hostPort(s)
}

func cookieName(s string) error {
	if !auth.ValidCookieName(s) {
		return fmt.Errorf("%q cannot be a cookie's name", s)
	}
	return nil
}

func atLeast[T int64 | time.Duration](v, least T) error {
	if v < least {
		return fmt.Errorf("must be at least %v, not %v", least, v)
	}
	return nil
}

// unknownVariable returns an error that names the first HERALD_* variable without a
// setting.
func unknownVariable(app *kong.Kong, environ []string) error {
	known := map[string]bool{}
	_ = kong.Visit(app.Model, func(node kong.Visitable, next kong.Next) error {
		if flag, ok := node.(*kong.Flag); ok {
			for _, name := range flag.Envs {
				known[name] = true
			}
		}
		return next(nil)
	})
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, "HERALD_") && !known[name] {
			return fmt.Errorf("%s: there is no such setting; gateway --help lists them", name)
		}
	}
	return nil
}

var flagName = regexp.MustCompile(`--([a-z0-9-]+)`)

// namingVariable adds the flag's variable to an error of kong.
func namingVariable(err error) error {
	m := flagName.FindStringSubmatch(err.Error())
	if m == nil {
		return err
	}
	return fmt.Errorf("%s: %w", "HERALD_"+strings.ToUpper(strings.ReplaceAll(m[1], "-", "_")), err)
}
