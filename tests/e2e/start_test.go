package e2e

import (
	"net"
	"strings"
	"testing"

	"herald/internal/testing/gatewaytest"
)

// TestStartsThatAreRefused: a wrong setting stops the start with one line that names it
// and shows no secret.
func TestStartsThatAreRefused(t *testing.T) {
	occupied, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = occupied.Close() }()
	const nowhere = "REDIS_URL=redis://127.0.0.1:1"
	const key = "HERALD_API_KEYS=backend:" + gatewaytest.Key
	gatewaytest.Build(t) // before many tests at once wait for it
	t.Run("all", func(t *testing.T) {
		for name, row := range map[string]struct {
			names string
			env   []string
		}{
			"no keys":                {"HERALD_API_KEYS", []string{nowhere}},
			"empty keys":             {"HERALD_API_KEYS", []string{nowhere, "HERALD_API_KEYS="}},
			"empty secret":           {"HERALD_API_KEYS", []string{nowhere, "HERALD_API_KEYS=backend:"}},
			"short secret":           {"HERALD_API_KEYS", []string{nowhere, "HERALD_API_KEYS=backend:secret-15-bytes"}},
			"short secret, embedded": {"HERALD_API_KEYS", []string{"HERALD_API_KEYS=backend:secret-15-bytes"}},
			"secret without a name":  {"HERALD_API_KEYS", []string{nowhere, "HERALD_API_KEYS=secret-of-16-bytes"}},
			"empty name":             {"HERALD_API_KEYS", []string{nowhere, "HERALD_API_KEYS=:secret-of-16-bytes"}},
			"unknown scope":          {"HERALD_API_KEYS", []string{nowhere, "HERALD_API_KEYS=b:secret-of-16-bytes:admin"}},
			"one name twice":         {"HERALD_API_KEYS", []string{nowhere, key + ",backend:secret-of-16-bytes"}},
			"short token key":        {"HERALD_JWT_KEYS", []string{nowhere, key, "HERALD_JWT_KEYS=k=HS256:secret-of-31-bytes-xxxxxxxxxxxx"}},
			"empty token key":        {"HERALD_JWT_KEYS", []string{nowhere, key, "HERALD_JWT_KEYS=k=HS256:"}},
			"alg none":               {"HERALD_JWT_KEYS", []string{nowhere, key, "HERALD_JWT_KEYS=k=none:secret-of-32-bytes-xxxxxxxxxxxxxx"}},
			"unknown alg":            {"HERALD_JWT_KEYS", []string{nowhere, key, "HERALD_JWT_KEYS=k=HS1:secret-of-32-bytes-xxxxxxxxxxxxxx"}},
			"missing PEM":            {"HERALD_JWT_KEYS", []string{nowhere, key, "HERALD_JWT_KEYS=k=RS256:@/nowhere.pem"}},
			"HMAC secret as PEM":     {"HERALD_JWT_KEYS", []string{nowhere, key, "HERALD_JWT_KEYS=k=RS256:secret-of-32-bytes-xxxxxxxxxxxxxx"}},
			"one kid twice":          {"HERALD_JWT_KEYS", []string{nowhere, key, "HERALD_JWT_KEYS=k=HS256:secret-of-32-bytes-xxxxxxxxxxxxxx,k=HS256:secret-of-32-bytes-yyyyyyyyyyyyyy"}},
			"unknown setting":        {"HERALD_NONSENSE", []string{"HERALD_NONSENSE=1"}},
			"misspelt setting":       {"HERALD_API_KEY", []string{nowhere, key, "HERALD_API_KEY=x"}},
			"unknown and empty":      {"HERALD_NONSENSE", []string{"HERALD_NONSENSE="}},
			"limit without period":   {"HERALD_PUBLISH_LIMIT", []string{"HERALD_PUBLISH_LIMIT=100"}},
			"limit of nothing":       {"HERALD_PUBLISH_LIMIT", []string{"HERALD_PUBLISH_LIMIT=0/1m"}},
			"limit negative":         {"HERALD_CONNECT_LIMIT", []string{"HERALD_CONNECT_LIMIT=-1/1m"}},
			"limit without unit":     {"HERALD_CONNECT_LIMIT", []string{"HERALD_CONNECT_LIMIT=1/60"}},
			"listen on nonsense":     {"HERALD_LISTEN", []string{"HERALD_LISTEN=nonsense"}},
			"listen where one is":    {"HERALD_LISTEN", []string{"HERALD_LISTEN=" + occupied.Addr().String()}},
			"admin where one is":     {"HERALD_ADMIN_LISTEN", []string{"HERALD_ADMIN_LISTEN=" + occupied.Addr().String()}},
			"duration":               {"HERALD_DRAIN", []string{"HERALD_DRAIN=soon"}},
			"duration without unit":  {"HERALD_PING", []string{"HERALD_PING=25"}},
			"ping of nothing":        {"HERALD_PING", []string{"HERALD_PING=0s"}},
			"negative life":          {"HERALD_SESSION_TTL", []string{"HERALD_SESSION_TTL=-1s"}},
			"format of sessions":     {"HERALD_SESSION_FORMAT", []string{nowhere, key, "HERALD_SESSION_FORMAT=django"}},
			"foreign and embedded":   {"HERALD_SESSION_FORMAT", []string{"HERALD_SESSION_FORMAT=json"}},
			"foreign and demo":       {"HERALD_DEMO", []string{nowhere, key, "HERALD_SESSION_FORMAT=json", "HERALD_DEMO=on"}},
			"no secret for Express":  {"HERALD_SESSION_SECRETS", []string{nowhere, key, "HERALD_SESSION_FORMAT=express"}},
			"empty secret of many":   {"HERALD_SESSION_SECRETS", []string{nowhere, key, "HERALD_SESSION_FORMAT=express", "HERALD_SESSION_SECRETS=secret-1234,"}},
			"short Express secret":   {"HERALD_SESSION_SECRETS", []string{nowhere, key, "HERALD_SESSION_FORMAT=express", "HERALD_SESSION_SECRETS=secret-"}},
			"secrets for JSON":       {"HERALD_SESSION_SECRETS", []string{nowhere, key, "HERALD_SESSION_FORMAT=json", "HERALD_SESSION_SECRETS=secret-1234"}},
			"prefix of our own":      {"HERALD_SESSION_PREFIX", []string{nowhere, key, "HERALD_SESSION_PREFIX=s:"}},
			"no prefix":              {"HERALD_SESSION_PREFIX", []string{nowhere, key, "HERALD_SESSION_FORMAT=json", "HERALD_SESSION_PREFIX="}},
			"user path of our own":   {"HERALD_SESSION_USER_PATH", []string{nowhere, key, "HERALD_SESSION_USER_PATH=user.id"}},
			"user path":              {"HERALD_SESSION_USER_PATH", []string{nowhere, key, "HERALD_SESSION_FORMAT=json", "HERALD_SESSION_USER_PATH=user..id"}},
			"sliding our own":        {"HERALD_SESSION_SLIDE", []string{nowhere, key, "HERALD_SESSION_SLIDE=on"}},
			"life without sliding":   {"HERALD_SESSION_TTL", []string{nowhere, key, "HERALD_SESSION_FORMAT=json", "HERALD_SESSION_TTL=24h"}},
			"age of foreign ones":    {"HERALD_SESSION_MAX_AGE", []string{nowhere, key, "HERALD_SESSION_FORMAT=json", "HERALD_SESSION_SLIDE=on", "HERALD_SESSION_MAX_AGE=24h"}},
			"check of our own":       {"HERALD_SESSION_CHECK", []string{nowhere, key, "HERALD_SESSION_CHECK=10s"}},
			"rare check":             {"HERALD_SESSION_CHECK", []string{nowhere, key, "HERALD_SESSION_FORMAT=json", "HERALD_SESSION_CHECK=31s"}},
			"constant check":         {"HERALD_SESSION_CHECK", []string{nowhere, key, "HERALD_SESSION_FORMAT=json", "HERALD_SESSION_CHECK=0s"}},
			"log format":             {"HERALD_LOG_FORMAT", []string{"HERALD_LOG_FORMAT=xml"}},
			"log level":              {"HERALD_LOG_LEVEL", []string{"HERALD_LOG_LEVEL=loud"}},
			"log length":             {"HERALD_LOG_LENGTH", []string{"HERALD_LOG_LENGTH=0"}},
			"number":                 {"HERALD_MAX_CONNECTIONS_PER_USER", []string{"HERALD_MAX_CONNECTIONS_PER_USER=many"}},
			"negative number":        {"HERALD_MAX_CONNECTIONS_PER_USER", []string{"HERALD_MAX_CONNECTIONS_PER_USER=-1"}},
			"any origin":             {"HERALD_ALLOWED_ORIGINS", []string{"HERALD_ALLOWED_ORIGINS=*"}},
			"origin with a path":     {"HERALD_ALLOWED_ORIGINS", []string{"HERALD_ALLOWED_ORIGINS=https://app.example.com/"}},
			"origin without scheme":  {"HERALD_ALLOWED_ORIGINS", []string{"HERALD_ALLOWED_ORIGINS=app.example.com"}},
			"proxies":                {"HERALD_TRUSTED_PROXIES", []string{"HERALD_TRUSTED_PROXIES=everyone"}},
			"one voter twice":        {"HERALD_LOCK_REDIS_URLS", []string{"HERALD_LOCK_REDIS_URLS=redis://:secret-x@127.0.0.1:1,redis://:secret-x@127.0.0.1:1"}},
			"voter by http":          {"HERALD_LOCK_REDIS_URLS", []string{"HERALD_LOCK_REDIS_URLS=redis://127.0.0.1:1,http://:secret-x@127.0.0.1:2"}},
			"janitor at nonsense":    {"HERALD_JANITOR", []string{"HERALD_JANITOR=3:30"}},
			"janitor too late":       {"HERALD_JANITOR", []string{"HERALD_JANITOR=24:00"}},
			"cookie's name":          {"HERALD_SESSION_COOKIE", []string{"HERALD_SESSION_COOKIE=a b"}},
			"key set by file":        {"HERALD_JWKS_URL", []string{"HERALD_JWKS_URL=file:///etc/secret-keys"}},
			"key set with password":  {"HERALD_JWKS_URL", []string{"HERALD_JWKS_URL=https://user:secret-password@127.0.0.1/"}},
			"nobody's preferences":   {"HERALD_RECIPIENTS_URL", []string{"HERALD_RECIPIENTS_URL=https://127.0.0.1/users"}},
			"preferences twice":      {"HERALD_RECIPIENTS_URL", []string{"HERALD_RECIPIENTS_URL=https://127.0.0.1/{userId}/{userId}"}},
			"preferences' host":      {"HERALD_RECIPIENTS_URL", []string{"HERALD_RECIPIENTS_URL=https://{userId}.example.com/"}},
			"preferences by ftp":     {"HERALD_RECIPIENTS_URL", []string{"HERALD_RECIPIENTS_URL=ftp://127.0.0.1/{userId}"}},
			"preferences for ever":   {"HERALD_RECIPIENTS_TTL", []string{"HERALD_RECIPIENTS_TTL=0s"}},
			"Redis by http":          {"REDIS_URL", []string{"REDIS_URL=http://user:secret-password@127.0.0.1", key}},
			"Redis at nonsense":      {"REDIS_URL", []string{"REDIS_URL=://secret-password", key}},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				code, output := gatewaytest.Refused(t, row.env...)
				if code == 0 || !strings.Contains(output, row.names) {
					t.Errorf("exit code %d, want another than 0 and the name %s:\n%s", code, row.names, output)
				}
				if strings.Count(output, "\n") != 1 || len(output) > 400 {
					t.Errorf("want one line:\n%s", output)
				}
				if strings.Contains(output, "secret-") || strings.Contains(output, gatewaytest.Key) {
					t.Errorf("a secret is shown:\n%s", output)
				}
			})
		}
	})
}

// TestStartWithoutSettings starts the gateway without any setting, as a new user does.
func TestStartWithoutSettings(t *testing.T) {
	g := gatewaytest.Start(t)
	banner := g.Stdout()
	for _, want := range []string{g.URL, "embedded", "curl", "/notify"} {
		if !strings.Contains(banner, want) {
			t.Errorf("the banner does not say %q:\n%s", want, banner)
		}
	}
	if !strings.HasPrefix(g.URL, "http://127.0.0.1:") {
		t.Errorf("without configuration it serves on %s", g.URL)
	}
	if code := g.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestNoDemoWithARealRedis: the demo's log-in without password exists only with the
// embedded Redis.
func TestNoDemoWithARealRedis(t *testing.T) {
	g, _ := node(t)
	checkProblem(t, g.Do("POST", "/demo/login", `{"userId":"alice"}`, g.Origin()), 404)
	checkProblem(t, g.Do("GET", "/demo/as/alice/", ""), 404)
	if g.Stdout() != "" {
		t.Errorf("standard output: %s", g.Stdout())
	}
}
