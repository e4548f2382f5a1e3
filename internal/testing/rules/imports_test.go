package rules

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"
)

// rule is one line of the picture in docs/architecture.md.
type rule struct {
	name   string
	reason string
	check  check
	broken []file // an example that the rule must refuse
}

// check returns what breaks a rule, one text each. Files of packages that do not
// exist break nothing.
type check func([]file) []string

const module = "herald/"

// The libraries that have one place each, with whatever lies below their paths.
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
	// base is what every package may speak in.
	base = []string{"notify"}
	// tools move bytes, or commands to Redis, and know nothing of notifications.
	tools = []string{"internal/redisx", "internal/transport"}
	// patterns are liftable: they import nothing of ours.
	patterns = []string{"patterns/cache", "patterns/lock", "patterns/idempotent"}
	// parts do one thing each; they do not import each other.
	parts = slices.Concat([]string{"broker", "hub", "sessions", "presence", "auth", "limiter"}, patterns,
		[]string{"internal/schedule", "internal/recipients", "internal/redisinfo", "internal/janitor", "internal/fetch"})
	// composites put parts together.
	composites = []string{"publishing", "stream"}
)

func join(lists ...[]string) []string { return slices.Concat(lists...) }

// packages are the folders that hold the program, and what of ours each may import.
// A package's own subfolders belong to it unless they are listed themselves.
var packageRules = []struct {
	name      string
	mayImport []string
	reason    string
	broken    string // an import that must be refused
}{
	{"notify", nil, "what the shared vocabulary needs, every package needs", "hub"},
	{"internal/redisx", nil, "how commands reach Redis does not depend on what they do", "broker"},
	{"internal/transport", nil, "how bytes move does not depend on what they say", "hub"},
	{"hub", base, "open connections are tested without Redis and HTTP", "broker"},
	{"broker", join(base, tools), "it delivers to a function, so it is tested without sockets", "hub"},
	{"sessions", join(base, tools), "a session store serves other programs too", "broker"},
	{"presence", join(base, tools), "it counts connections without holding them", "hub"},
	{"auth", base, "who is asking must not depend on what is asked", "sessions"},
	{"limiter", join(base, tools), "a limit counts subjects of any kind", "auth"},
	{"patterns/cache", nil, "a pattern of its own, usable without the gateway", "patterns/lock"},
	{"patterns/lock", nil, "a pattern of its own, usable without the gateway", "patterns/cache"},
	{"patterns/idempotent", nil, "a pattern of its own, usable without the gateway", "notify"},
	{"internal/fetch", nil, "fetching a document does not depend on its content", "patterns/cache"},
	{"internal/recipients", join(base, tools), "a recipient's preferences do not depend on where they are cached", "patterns/cache"},
	{"internal/schedule", join(base, tools), "due notifications go to a function, so it is tested without a broker", "broker"},
	{"internal/redisinfo", tools, "the doctor examines Redis without a gateway", "broker"},
	{"internal/janitor", tools, "it is given what to clean, and the job that runs once a day", "patterns/lock"},
	{"publishing", join(base, tools, parts), "it composes parts and knows no HTTP", "stream"},
	{"stream", join(base, tools, parts), "a client's life is tested over net.Pipe, without HTTP", "server"},
	{"web", nil, "pages and scripts are data", "server"},
	{"server/admin", join(base, tools, parts, []string{"web"}), "the operators' listener sees the server through an interface", "server"},
	{"server", join(base, tools, parts, composites, []string{"web", "server/admin"}), "it speaks HTTP for the parts; none of them imports it", "cmd/gateway"},
	{"cmd/gateway", join(base, tools, parts, composites, []string{"web", "server", "server/admin"}), "it wires the program; nothing imports it", "loadtest"},
	{"loadtest", base, "an outside observer must not share the mistakes of what it measures", "hub"},
	{"internal/testing", base, "test helpers meet the program over the network", "server"},
}

// rules is the whole picture.
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
	{"every package is in the picture", "a package without a rule may import anything",
		packagesAreKnown, []file{imports("utils/a.go"), imports("internal/utils/a.go")}},
	{"notify is standard library only", "a wire format must not change with a dependency",
		standardLibraryOnly("notify"), []file{imports("notify/a.go", "golang.org/x/text")}},
	{"test helpers in tests only", "they link the testing package and start processes",
		place([]string{"herald/internal/testing"}, "internal/testing/"), []file{imports("server/a.go", "herald/internal/testing/redistest")}},
	{"Fiber and fasthttp in server only", "the core knows no transport, and fasthttp's memory is reused under whoever keeps it",
		place(webFramework, "server/"), []file{imports("hub/a.go", "github.com/gofiber/fiber/v2")}},
	{"the WebSocket library in two files", "its traps are fenced off where they are explained",
		place(webSocket, "server/upgrade.go", "stream/parser.go", "loadtest/"), []file{imports("server/stream.go", "github.com/coder/websocket")}},
	{"golang-jwt in auth only", "its errors still carry an attacker's claims, its defaults accept too much",
		place(tokens, "auth/"), []file{imports("server/a.go", "github.com/golang-jwt/jwt/v5")}},
	{"redsync in patterns/lock only", "its locks have no fencing token, and its defaults are answered in one place",
		place(redlock, "patterns/lock/"), []file{imports("broker/a.go", "github.com/go-redsync/redsync/v4")}},
	{"the embedded Redis in cmd only", "no package may come to rely on an imitation",
		place(embeddedRedis, "cmd/"), []file{imports("broker/a.go", "github.com/alicebob/miniredis/v2")}},
	{"Prometheus in one file", "packages count with plain numbers; one list says what an operator sees",
		oneFile(metrics), []file{imports("server/a.go", "github.com/prometheus/client_golang/prometheus"), imports("hub/b.go", "github.com/prometheus/client_golang/prometheus")}},
	{"the Redis client only in packages that own keys", "what Redis is asked, and what happens when it is away, is decided where the keys are",
		absent(redisClient, "hub", "auth", "notify", "publishing", "stream", "server", "server/admin", "web", "internal/fetch", "internal/recipients", "internal/transport"), []file{imports("server/a.go", "github.com/redis/go-redis/v9")}},
	{"the environment is read in cmd only", "everything else is told what it needs, and can be tested with it",
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
			t.Errorf("%s: its example is not refused", r.name)
		}
		if got := r.check(sound); len(got) > 0 {
			t.Errorf("%s refuses what is right: %v", r.name, got)
		}
		if got := r.check(nil); len(got) > 0 {
			t.Errorf("%s refuses packages that do not exist: %v", r.name, got)
		}
	}
}

// imports is a file as sources returns it.
func imports(name string, paths ...string) file { return file{Path: name, Imports: paths} }

// only: of our own packages, this one imports itself and those.
func only(name string, others ...string) check {
	return eachImport(func(f file, imported string) bool {
		other, ours := strings.CutPrefix(imported, module)
		other = packageOf(other)
		return f.Package() == name && ours && other != name && !slices.Contains(others, other)
	})
}

// packageOf returns the longest name in packageRules that is path or one of its
// parents; the first folder of path if none is.
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

// standardLibraryOnly relies on paths of other modules beginning with a domain.
func standardLibraryOnly(name string) check {
	return eachImport(func(f file, imported string) bool {
		first, _, _ := strings.Cut(imported, "/")
		return f.Package() == name && strings.Contains(first, ".")
	})
}

// place: the libraries are imported only in these folders ("server/") and files.
func place(libraries []string, places ...string) check {
	return eachImport(func(f file, imported string) bool {
		there := slices.ContainsFunc(places, func(p string) bool {
			return f.Path == p || strings.HasSuffix(p, "/") && strings.HasPrefix(f.Path, p)
		})
		return below(imported, libraries) && !there
	})
}

// absent: the libraries are not imported in these packages.
func absent(libraries []string, packages ...string) check {
	return eachImport(func(f file, imported string) bool {
		return below(imported, libraries) && slices.Contains(packages, f.Package())
	})
}

// oneFile: the libraries are imported in at most one file.
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

// below reports whether a path is one of the libraries or below one.
func below(imported string, libraries []string) bool {
	return slices.ContainsFunc(libraries, func(l string) bool {
		return imported == l || strings.HasPrefix(imported, l+"/")
	})
}
