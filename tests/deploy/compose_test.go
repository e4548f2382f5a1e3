package deploy

import (
	"context"
	"net"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"herald/internal/testing/gatewaytest"
	"herald/internal/testing/redistest"
)

// composeFile is the part of docker-compose.yml that these tests read. A nil in
// Environment is passed on from compose's own environment.
type composeFile struct {
	Services map[string]service
	Networks map[string]struct {
		IPAM struct{ Config []struct{ Subnet string } }
	}
	Volumes map[string]any
}

type service struct {
	Image string
	Build struct {
		Context, Dockerfile string
		Args                map[string]string
	}
	Command     []string
	Environment map[string]*string
	Ports       []string
	Volumes     []string
	StopGrace   time.Duration `yaml:"stop_grace_period"`
	ExtraHosts  []string      `yaml:"extra_hosts"`
	Networks    yaml.Node
	HealthCheck struct{ Test []string }
	DependsOn   map[string]struct{ Condition string } `yaml:"depends_on"`
	Ulimits     struct{ NoFile struct{ Soft, Hard int } }
}

var gatewayNames = []string{"gateway1", "gateway2", "gateway3"}

func compose(t *testing.T) composeFile {
	t.Helper()
	var c composeFile
	if err := yaml.Unmarshal([]byte(read(t, "../../docker-compose.yml")), &c); err != nil {
		t.Fatalf("docker-compose.yml: %v", err)
	}
	return c
}

// address is the fixed address of a service in the network.
func (s service) address(t *testing.T) netip.Addr {
	t.Helper()
	var n map[string]struct {
		Address string `yaml:"ipv4_address"`
	}
	if err := s.Networks.Decode(&n); err != nil {
		t.Fatalf("networks: %v", err)
	}
	a, err := netip.ParseAddr(n["herald"].Address)
	if err != nil {
		t.Fatalf("ipv4_address: %v", err)
	}
	return a
}

// value is a variable with a value in the file.
func (s service) value(t *testing.T, variable string) string {
	t.Helper()
	v := s.Environment[variable]
	if v == nil {
		t.Fatalf("%s has no value", variable)
	}
	return *v
}

// required is a variable that compose refuses to start without.
var required = regexp.MustCompile(`^\$\{([A-Z_]+):\?([^}$]+)\}$`)

// environment returns a gateway's environment as compose builds it when all required
// variables are set.
func (s service) environment(values map[string]string) []string {
	var env []string
	for name, v := range s.Environment {
		switch {
		case v == nil:
		case required.MatchString(*v):
			env = append(env, name+"="+values[required.FindStringSubmatch(*v)[1]])
		default:
			env = append(env, name+"="+*v)
		}
	}
	slices.Sort(env)
	return env
}

func testValues() map[string]string {
	return map[string]string{"HERALD_API_KEYS": "backend:" + gatewaytest.Key}
}

func TestComposeServices(t *testing.T) {
	c := compose(t)
	var names []string
	for name := range c.Services {
		names = append(names, name)
	}
	slices.Sort(names)
	if want := append(slices.Clone(gatewayNames), "nginx", "redis"); !slices.Equal(names, want) {
		t.Errorf("services %v, want %v", names, want)
	}
	for name, s := range c.Services {
		if want := name == "nginx"; (len(s.Ports) > 0) != want {
			t.Errorf("%s publishes %v; only nginx is for the world", name, s.Ports)
		}
	}
	for _, name := range gatewayNames {
		if s := c.Services[name]; s.Build.Context != "." || s.Build.Dockerfile != "deploy/Dockerfile" || s.Build.Args["VERSION"] != "${VERSION:-dev}" || s.DependsOn["redis"].Condition != "service_healthy" {
			t.Errorf("%s: build %+v, depends on redis %q", name, s.Build, s.DependsOn["redis"].Condition)
		}
		if n := c.Services[name].Ulimits.NoFile; n.Soft < 100_000 || n.Hard < n.Soft {
			t.Errorf("%s: nofile %d/%d is too few for its sockets", name, n.Soft, n.Hard)
		}
	}
}

// Every variable must be a setting of the program, which refuses to start with an unknown
// one.
func TestComposeEnvironmentIsTheGateways(t *testing.T) {
	help, err := exec.CommandContext(t.Context(), gatewaytest.Build(t), "--help").CombinedOutput()
	if err != nil {
		t.Fatalf("gateway --help: %v\n%s", err, help)
	}
	c := compose(t)
	for _, name := range gatewayNames {
		for variable := range c.Services[name].Environment {
			if !regexp.MustCompile(`\b` + variable + `\b`).Match(help) {
				t.Errorf("%s: gateway --help does not know %s", name, variable)
			}
		}
	}
	env := c.Services["gateway1"].environment(testValues())
	gatewaytest.Start(t, append(env, "REDIS_URL="+redistest.Start(t).URL(), "HERALD_LISTEN=127.0.0.1:0")...)
}

func TestComposeFitsNginx(t *testing.T) {
	c, conf := compose(t), read(t, "../../deploy/nginx.conf")
	listen := regexp.MustCompile(`(?m)^\s*listen (\d+);`).FindStringSubmatch(conf)
	if listen == nil || !slices.Equal(c.Services["nginx"].Ports, []string{"8080:" + listen[1]}) {
		t.Errorf("nginx publishes %v and listens on %v", c.Services["nginx"].Ports, listen)
	}
	if v := c.Services["nginx"].Volumes; !slices.Contains(v, "./deploy/nginx.conf:/etc/nginx/nginx.conf:ro") {
		t.Errorf("nginx mounts %v", v)
	}
	var want, got []string
	for _, name := range gatewayNames {
		_, port, err := net.SplitHostPort(c.Services[name].value(t, "HERALD_LISTEN"))
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, name+":"+port)
		host := name + ":" + c.Services[name].address(t).String()
		if !slices.Contains(c.Services["nginx"].ExtraHosts, host) {
			t.Errorf("nginx's extra_hosts %v lack %s", c.Services["nginx"].ExtraHosts, host)
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^\s*server (\S+:\d+) `).FindAllStringSubmatch(conf, -1) {
		got = append(got, m[1])
	}
	if !slices.Equal(got, append(want, want...)) {
		t.Errorf("nginx's upstreams are %v, want %v twice", got, want)
	}
}

// A wider range would trust the network's first address. Requests of the host come from
// it, with any X-Forwarded-For that a client invents.
func TestComposeTrustsNginxOnly(t *testing.T) {
	c := compose(t)
	subnet := netip.MustParsePrefix(c.Networks["herald"].IPAM.Config[0].Subnet)
	nginx := c.Services["nginx"].address(t)
	want := netip.PrefixFrom(nginx, 32).String()
	for _, name := range gatewayNames {
		if got := c.Services[name].value(t, "HERALD_TRUSTED_PROXIES"); got != want {
			t.Errorf("%s trusts %s, want %s", name, got, want)
		}
		if a := c.Services[name].address(t); !subnet.Contains(a) {
			t.Errorf("%s: %v is not in %v", name, a, subnet)
		}
	}
	if !subnet.Contains(nginx) || nginx == subnet.Addr().Next() {
		t.Errorf("nginx cannot have %v in %v", nginx, subnet)
	}
}

func TestComposeGivesTheDrainItsTime(t *testing.T) {
	for _, name := range gatewayNames {
		s := compose(t).Services[name]
		drain, err := time.ParseDuration(s.value(t, "HERALD_DRAIN"))
		if err != nil {
			t.Fatalf("%s: HERALD_DRAIN: %v", name, err)
		}
		if s.StopGrace < drain+5*time.Second {
			t.Errorf("%s is killed after %v, in a drain of %v", name, s.StopGrace, drain)
		}
	}
}

// No secret has a value in the file, and each missing one has a message that says what to
// set.
func TestComposeHoldsNoSecret(t *testing.T) {
	for name, s := range compose(t).Services {
		for variable, v := range s.Environment {
			secret := regexp.MustCompile(`KEY|SECRET|PASS|TOKEN`).MatchString(variable)
			if secret && v != nil && !required.MatchString(*v) {
				t.Errorf("%s: %s has a value: %s", name, variable, *v)
			}
		}
	}
	for _, name := range gatewayNames {
		v := compose(t).Services[name].Environment["HERALD_API_KEYS"]
		if v == nil || !required.MatchString(*v) || !strings.Contains(*v, "name:secret") {
			t.Errorf("%s: HERALD_API_KEYS does not say how it is set", name)
		}
	}
	if text := read(t, "../../docker-compose.yml"); regexp.MustCompile(`[0-9a-f]{16}|redis://[^/\s]*@`).MatchString(text) {
		t.Error("docker-compose.yml has something like a secret")
	}
}

// A real redis-server starts with these flags and reports the resulting configuration.
func TestComposeRedisKeepsWhatItAcknowledged(t *testing.T) {
	s := compose(t).Services["redis"]
	if !strings.HasPrefix(s.Image, "redis:7") || len(s.Command) == 0 || s.Command[0] != "redis-server" {
		t.Fatalf("redis runs %s %v", s.Image, s.Command)
	}
	if !slices.Contains(s.Volumes, "redis:/data") {
		t.Errorf("redis mounts %v, its data is lost with the container", s.Volumes)
	}
	if _, ok := compose(t).Volumes["redis"]; !ok {
		t.Error("the volume redis is not declared")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	client := redistest.Start(t, s.Command[1:]...).Client()
	for name, want := range map[string]string{
		"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction",
	} {
		if got := client.ConfigGet(ctx, name).Val()[name]; got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if got := client.ConfigGet(ctx, "maxmemory").Val()["maxmemory"]; got == "" || got == "0" {
		t.Errorf("maxmemory is %q: noeviction without a limit refuses nothing", got)
	}
}
