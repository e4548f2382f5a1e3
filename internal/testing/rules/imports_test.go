package rules

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"
)

// rule is one import rule. docs/architecture.md shows them as a picture.
type rule struct {
	name   string
	reason string
	check  check
	broken []file // an example that the rule must refuse
}

// check returns one text for each violation of a rule. It reports nothing for
// packages that do not exist.
type check func([]file) []string

const module = "herald/"

// The libraries that only some packages may import, by path prefix.
var (
	webFramework  = []string{"github.com/gofiber", "github.com/valyala/fasthttp"}
	webSocket     = []string{"github.com/coder/websocket", "nhooyr.io/websocket", "github.com/gorilla/websocket"}
	tokens        = []string{"github.com/golang-jwt"}
	metrics       = []string{"github.com/prometheus"}
	redlock       = []string{"github.com/go-redsync"}
	redisClient   = []string{"github.com/redis"}
	embeddedRedis = []string{"github.com/alicebob"}
)

// The layers of the program, from the lowest up. A package imports only packages
// of lower layers, so those of one layer are independent of each other.
var (
	// base is the vocabulary that most packages use.
	base = []string{"notify"}
	// tools move bytes, or commands to Redis, independent of notifications.
	tools = []string{"internal/redisx", "internal/transport"}
	// patterns can be copied into other programs: they import no package of Herald.
	patterns = []string{"patterns/cache", "patterns/lock", "patterns/idempotent"}
	// parts have one task each and do not import each other.
	parts = slices.Concat([]string{"broker", "hub", "sessions", "presence", "auth", "limiter"}, patterns,
		[]string{"internal/schedule", "internal/recipients", "internal/redisinfo", "internal/janitor", "internal/fetch"})
	// composites combine parts.
	composites = []string{"publishing", "stream"}
)

// packageRules lists the packages of Herald that each package may import. A
// subfolder belongs to its parent unless it is listed itself.
var packageRules = []struct {
	name      string
	mayImport []string
	reason    string
	broken    string // an import that must be refused
}{
	{"notify", nil, "most packages import it, and so depend on all its imports", "hub"},
	{"internal/redisx", nil, "sending a command to Redis does not depend on its purpose", "broker"},
	{"internal/transport", nil, "moving bytes does not depend on their content", "hub"},
	{"hub", base, "open connections are tested without Redis and HTTP", "broker"},
	{"broker", slices.Concat(base, tools), "it delivers to a function, so it is tested without sockets", "hub"},
	{"sessions", slices.Concat(base, tools), "a session store serves other programs too", "broker"},
	{"presence", slices.Concat(base, tools), "it counts connections without holding them", "hub"},
	{"auth", base, "authentication must not depend on the operation", "sessions"},
	{"limiter", slices.Concat(base, tools), "a limit counts subjects of any kind", "auth"},
	{"patterns/cache", nil, "a pattern is usable without the gateway", "patterns/lock"},
	{"patterns/lock", nil, "a pattern is usable without the gateway", "patterns/cache"},
	{"patterns/idempotent", nil, "a pattern is usable without the gateway", "notify"},
	{"internal/fetch", nil, "fetching a document does not depend on its content", "patterns/cache"},
	{"internal/recipients", slices.Concat(base, tools), "a recipient's preferences do not depend on where they are cached", "patterns/cache"},
	{"internal/schedule", slices.Concat(base, tools), "due notifications go to a function, so it is tested without a broker", "broker"},
	{"internal/redisinfo", tools, "the doctor examines Redis without a gateway", "broker"},
	{"internal/janitor", tools, "its caller passes the cleaners and the daily job", "patterns/lock"},
	{"publishing", slices.Concat(base, tools, parts), "it combines parts and does not depend on HTTP", "stream"},
	{"stream", slices.Concat(base, tools, parts), "a client's life is tested over net.Pipe, without HTTP", "server"},
	{"web", nil, "pages and scripts are data", "server"},
	{"server/admin", slices.Concat(base, tools, parts, []string{"web"}), "the operators' listener sees the server through an interface", "server"},
	{"server", slices.Concat(base, tools, parts, composites, []string{"web", "server/admin"}), "it speaks HTTP for the parts; none of them imports it", "cmd/gateway"},
	{"cmd/gateway", slices.Concat(base, tools, parts, composites, []string{"web", "server", "server/admin"}), "it wires the program; nothing imports it", "loadtest"},
	{"loadtest", base, "a load generator must not share bugs with the gateway that it measures", "hub"},
	{"internal/testing", base, "test helpers meet the program over the network", "server"},
}

// rules returns all import rules.
func rules() []rule {
	all := slices.Clone(libraryRules)
	for _, r := range packageRules {
		all = append(all, rule{
			"imports of " + r.name, r.reason, only(r.name, r.mayImport...),
			[]file{imports(r.name+"/a.go", module+r.broken)},
		})
	}
	return all
}

var libraryRules = []rule{
	{"every package has a rule", "a package without a rule may import anything",
		packagesAreKnown, []file{imports("utils/a.go"), imports("internal/utils/a.go")}},
	{"notify is standard library only", "a wire format must not change with a dependency",
		standardLibraryOnly("notify"), []file{imports("notify/a.go", "golang.org/x/text")}},
	{"test helpers in tests only", "they link the testing package and start processes",
		place([]string{"herald/internal/testing"}, "internal/testing/"), []file{imports("server/a.go", "herald/internal/testing/redistest")}},
	{"Fiber and fasthttp in server only", "the core does not depend on the transport, and fasthttp reuses the memory of its requests",
		place(webFramework, "server/"), []file{imports("hub/a.go", "github.com/gofiber/fiber/v2")}},
	{"the WebSocket library in two files", "these files explain and avoid its pitfalls",
		place(webSocket, "server/upgrade.go", "stream/parser.go", "loadtest/"), []file{imports("server/stream.go", "github.com/coder/websocket")}},
	{"golang-jwt in auth only", "with an error it still returns unverified claims, and its defaults accept too much",
		place(tokens, "auth/"), []file{imports("server/a.go", "github.com/golang-jwt/jwt/v5")}},
	{"redsync in patterns/lock only", "its locks have no fencing token, and one package sets its options",
		place(redlock, "patterns/lock/"), []file{imports("broker/a.go", "github.com/go-redsync/redsync/v4")}},
	{"the embedded Redis in cmd only", "no package may depend on the behaviour of an imitation",
		place(embeddedRedis, "cmd/"), []file{imports("broker/a.go", "github.com/alicebob/miniredis/v2")}},
	{"Prometheus in one file", "packages count with plain integers; one file lists all metrics",
		oneFile(metrics), []file{imports("server/a.go", "github.com/prometheus/client_golang/prometheus"), imports("hub/b.go", "github.com/prometheus/client_golang/prometheus")}},
	{"the Redis client only in packages that own keys", "the package that owns a key defines its commands and its behaviour during an outage",
		absent(redisClient, "hub", "auth", "notify", "publishing", "stream", "server", "server/admin", "web", "internal/fetch", "internal/recipients", "internal/transport"), []file{imports("server/a.go", "github.com/redis/go-redis/v9")}},
	{"the environment is read in cmd only", "other packages get their settings as arguments, so tests can set them",
		environmentIn("cmd/gateway", "internal/testing"), []file{{Path: "broker/a.go", Env: []string{"os.Getenv"}}}},
}

func TestImports(t *testing.T) {
	files := sources(t)
	for _, r := range rules() {
		for _, broken := range r.check(files) {
			t.Errorf("%s\n\trule: %s\n\treason: %s", broken, r.name, r.reason)
		}
	}
}

func TestEveryRuleCanFail(t *testing.T) {
	sound := []file{
		imports("notify/a.go", "errors"), imports("hub/a.go", "herald/notify"), imports("broker/a.go", "herald/notify", "github.com/redis/go-redis/v9"),
		imports("auth/a.go", "herald/notify", "github.com/golang-jwt/jwt/v5"), imports("web/a.go", "embed"),
		imports("server/a.go", "herald/hub", "herald/web", "github.com/gofiber/fiber/v2"), imports("server/upgrade.go", "github.com/coder/websocket"),
		imports("server/admin/metrics.go", "github.com/prometheus/client_golang/prometheus", "github.com/prometheus/client_golang/prometheus/promhttp"),
		{Path: "cmd/gateway/main.go", Imports: []string{"herald/server", "herald/broker", "github.com/alicebob/miniredis/v2"}, Env: []string{"os.Environ"}},
		imports("loadtest/main.go", "herald/notify", "github.com/coder/websocket"), imports("internal/testing/xtest/a.go", "herald/internal/testing/ytest"),
	}
	for _, r := range rules() {
		if len(r.check(r.broken)) == 0 {
			t.Errorf("%s: the example in broken is not refused", r.name)
		}
		if got := r.check(sound); len(got) > 0 {
			t.Errorf("%s refuses valid imports: %v", r.name, got)
		}
		if got := r.check(nil); len(got) > 0 {
			t.Errorf("%s refuses packages that do not exist: %v", r.name, got)
		}
	}
}

// imports returns a file with the given imports, as sources does.
func imports(name string, paths ...string) file { return file{Path: name, Imports: paths} }

// only checks that a package imports no package of Herald but itself and others.
func only(name string, others ...string) check {
	return eachImport(func(f file, imported string) bool {
		other, ours := strings.CutPrefix(imported, module)
		other = packageOf(other)
		return f.Package() == name && ours && other != name && !slices.Contains(others, other)
	})
}

// packageOf returns the longest name in packageRules that is path or a parent of it,
// or the first folder of path if none matches.
func packageOf(path string) string {
	longest := ""
	for _, r := range packageRules {
		if below(path, []string{r.name}) && len(r.name) > len(longest) {
			longest = r.name
		}
	}
	if longest == "" {
		longest, _, _ = strings.Cut(path, "/")
	}
	return longest
}

// standardLibraryOnly checks that a package imports no other module, whose path would
// begin with a domain.
func standardLibraryOnly(name string) check {
	return eachImport(func(f file, imported string) bool {
		first, _, _ := strings.Cut(imported, "/")
		return f.Package() == name && strings.Contains(first, ".")
	})
}

// place checks that only these folders ("server/") and files import the libraries.
func place(libraries []string, places ...string) check {
	return eachImport(func(f file, imported string) bool {
		there := slices.ContainsFunc(places, func(p string) bool {
			return f.Path == p || strings.HasSuffix(p, "/") && strings.HasPrefix(f.Path, p)
		})
		return below(imported, libraries) && !there
	})
}

// absent checks that these packages do not import the libraries.
func absent(libraries []string, packages ...string) check {
	return eachImport(func(f file, imported string) bool {
		return below(imported, libraries) && slices.Contains(packages, f.Package())
	})
}

// oneFile checks that at most one file imports the libraries.
func oneFile(libraries []string) check {
	return func(files []file) (broken []string) {
		for _, f := range files {
			if slices.ContainsFunc(f.Imports, func(p string) bool { return below(p, libraries) }) {
				broken = append(broken, f.Path+" imports "+path.Base(libraries[0]))
			}
		}
		if len(broken) < 2 {
			return nil
		}
		return broken
	}
}

func environmentIn(packages ...string) check {
	return func(files []file) (broken []string) {
		for _, f := range files {
			if len(f.Env) > 0 && !slices.Contains(packages, f.Package()) {
				broken = append(broken, fmt.Sprintf("%s uses %v", f.Path, f.Env))
			}
		}
		return broken
	}
}

func packagesAreKnown(files []file) (broken []string) {
	for _, f := range files {
		if !knownPackage(f.Package()) {
			broken = append(broken, f.Path+" is in a package that has no rule")
		}
	}
	return broken
}

func knownPackage(name string) bool {
	for _, r := range packageRules {
		if r.name == name {
			return true
		}
	}
	return false
}

func eachImport(refused func(f file, imported string) bool) check {
	return func(files []file) (broken []string) {
		for _, f := range files {
			for _, p := range f.Imports {
				if refused(f, p) {
					broken = append(broken, f.Path+" imports "+p)
				}
			}
		}
		return broken
	}
}

// below reports whether a path is that of a library or of one of its packages.
func below(imported string, libraries []string) bool {
	return slices.ContainsFunc(libraries, func(l string) bool {
		return imported == l || strings.HasPrefix(imported, l+"/")
	})
}
