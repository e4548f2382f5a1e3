package rules

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"
)

// rule is one line of the picture in ARCHITECTURE.md.
type rule struct {
	name   string
	reason string
	check  check
	broken []file // an example that the rule must refuse
}

// check returns what breaks a rule, one text each. Files of rooms that do not
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

// middle are the rooms that know nothing of each other.
var middle = []string{"hub", "broker", "sessions", "presence", "auth", "limiter", "cache", "lock", "schedule", "idempotent", "redisinfo", "janitor", "fetch", "recipients", "pipeline", "rawio"}

// rooms are the folders that hold the program, and what of ours each may import.
var rooms = []struct {
	name      string
	mayImport []string
	reason    string
	broken    string // an import that must be refused
}{
	{"notify", nil, "whatever the shared words need, everyone needs", "hub"},
	{"hub", []string{"notify"}, "open connections are tested without Redis and HTTP", "broker"},
	{"broker", []string{"notify"}, "it delivers to a function it is given, so it can be tested without sockets", "hub"},
	{"sessions", []string{"notify"}, "a session store serves other programs too", "broker"},
	{"presence", []string{"notify"}, "it counts what it is told of, whoever holds the connections", "hub"},
	{"auth", []string{"notify"}, "who is asking must not depend on what is asked", "sessions"},
	{"limiter", []string{"notify"}, "a limit counts subjects, whoever they are", "auth"},
	{"cache", []string{"notify"}, "a pattern of its own, usable without the gateway", "lock"},
	{"fetch", nil, "a document is got the same way whatever is in it", "cache"},
	{"recipients", []string{"notify"}, "what recipients want does not depend on where it is kept", "cache"},
	{"lock", []string{"notify"}, "a pattern of its own, usable without the gateway", "cache"},
	{"schedule", []string{"notify"}, "what is due is handed to a function, so it can be tested without a broker", "broker"},
	{"idempotent", nil, "a pattern of its own, usable without the gateway", "notify"},
	{"redisinfo", nil, "a look at Redis serves any program, and the doctor runs without a gateway", "broker"},
	{"janitor", nil, "it is given what to clean, and by whom it is done once", "lock"},
	{"pipeline", nil, "how scripts travel does not depend on what they do", "broker"},
	{"rawio", nil, "a connection's bytes are anyone's", "hub"},
	{"web", nil, "what browsers get is data", "server"},
	{"server", append([]string{"notify", "web"}, middle...), "it speaks HTTP for the rooms, and nobody it serves knows it", "cmd/gateway"},
	{"cmd", append([]string{"notify", "web", "server"}, middle...), "it ties the knot; nothing is above it", "loadtest"},
	{"loadtest", []string{"notify"}, "an outside observer must not share the mistakes of what it measures", "hub"},
	{"internal", []string{"notify"}, "test helpers meet the program as strangers do", "server"},
}

// rules is the whole picture.
func rules() []rule {
	all := slices.Clone(libraryRules)
	for _, r := range rooms {
		all = append(all, rule{
			"imports of " + r.name, r.reason, only(r.name, r.mayImport...),
			[]file{imports(r.name+"/a.go", module+r.broken)},
		})
	}
	return all
}

var libraryRules = []rule{
	{"every room is in the picture", "a room without a rule may import anything",
		roomsAreKnown, []file{imports("utils/a.go")}},
	{"notify is standard library only", "a wire format must not change with a dependency",
		standardLibraryOnly("notify"), []file{imports("notify/a.go", "golang.org/x/text")}},
	{"test helpers in tests only", "they link the testing package and start processes",
		place([]string{"herald/internal"}, "internal/"), []file{imports("server/a.go", "herald/internal/redistest")}},
	{"Fiber and fasthttp in server only", "the core knows no transport, and fasthttp's memory is reused under whoever keeps it",
		place(webFramework, "server/"), []file{imports("hub/a.go", "github.com/gofiber/fiber/v2")}},
	{"the WebSocket library in three files", "its traps are fenced off where they are explained",
		place(webSocket, "server/ws.go", "server/upgrade.go", "server/parser.go", "loadtest/"), []file{imports("server/stream.go", "github.com/coder/websocket")}},
	{"golang-jwt in auth only", "its errors still carry an attacker's claims, its defaults accept too much",
		place(tokens, "auth/"), []file{imports("server/a.go", "github.com/golang-jwt/jwt/v5")}},
	{"redsync in lock only", "its locks have no fencing token, and its defaults are answered in one place",
		place(redlock, "lock/"), []file{imports("broker/a.go", "github.com/go-redsync/redsync/v4")}},
	{"the embedded Redis in cmd only", "no room may come to rely on an imitation",
		place(embeddedRedis, "cmd/"), []file{imports("broker/a.go", "github.com/alicebob/miniredis/v2")}},
	{"Prometheus in one file", "rooms count with plain numbers; one list says what an operator sees",
		oneFile(metrics), []file{imports("server/a.go", "github.com/prometheus/client_golang/prometheus"), imports("hub/b.go", "github.com/prometheus/client_golang/prometheus")}},
	{"no Redis client in hub, auth, notify, server, web, fetch, recipients and rawio", "what Redis is asked, and what happens when it is away, is decided in the rooms that own the keys",
		absent(redisClient, "hub", "auth", "notify", "server", "web", "fetch", "recipients", "rawio"), []file{imports("server/a.go", "github.com/redis/go-redis/v9")}},
	{"the environment is read in cmd only", "everything else is told what it needs, and can be tested with it",
		environmentIn("cmd", "internal"), []file{{Path: "broker/a.go", Env: []string{"os.Getenv"}}}},
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
		imports("server/a.go", "herald/hub", "herald/web", "github.com/gofiber/fiber/v2"), imports("server/ws.go", "github.com/coder/websocket"),
		imports("server/metrics.go", "github.com/prometheus/client_golang/prometheus", "github.com/prometheus/client_golang/prometheus/promhttp"),
		{Path: "cmd/gateway/main.go", Imports: []string{"herald/server", "herald/broker", "github.com/alicebob/miniredis/v2"}, Env: []string{"os.Environ"}},
		imports("loadtest/main.go", "herald/notify", "github.com/coder/websocket"), imports("internal/xtest/a.go", "herald/internal/ytest"),
	}
	for _, r := range rules() {
		if len(r.check(r.broken)) == 0 {
			t.Errorf("%s: its example is not refused", r.name)
		}
		if got := r.check(sound); len(got) > 0 {
			t.Errorf("%s refuses what is right: %v", r.name, got)
		}
		if got := r.check(nil); len(got) > 0 {
			t.Errorf("%s refuses rooms that do not exist: %v", r.name, got)
		}
	}
}

// imports is a file as sources returns it.
func imports(name string, paths ...string) file { return file{Path: name, Imports: paths} }

// only: of our own rooms, this one imports itself and those.
func only(room string, others ...string) check {
	return eachImport(func(f file, imported string) bool {
		other, ours := strings.CutPrefix(imported, module)
		other, _, _ = strings.Cut(other, "/")
		return f.Room() == room && ours && other != room && !slices.Contains(others, other)
	})
}

// standardLibraryOnly relies on paths of other modules beginning with a domain.
func standardLibraryOnly(room string) check {
	return eachImport(func(f file, imported string) bool {
		first, _, _ := strings.Cut(imported, "/")
		return f.Room() == room && strings.Contains(first, ".")
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

// absent: the libraries are not imported in these rooms.
func absent(libraries []string, rooms ...string) check {
	return eachImport(func(f file, imported string) bool {
		return below(imported, libraries) && slices.Contains(rooms, f.Room())
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

func environmentIn(rooms ...string) check {
	return func(files []file) (broken []string) {
		for _, f := range files {
			if len(f.Env) > 0 && !slices.Contains(rooms, f.Room()) {
				broken = append(broken, fmt.Sprintf("%s uses %v", f.Path, f.Env))
			}
		}
		return broken
	}
}

func roomsAreKnown(files []file) (broken []string) {
	for _, f := range files {
		if !knownRoom(f.Room()) {
			broken = append(broken, f.Path+" is in a room that has no rule")
		}
	}
	return broken
}

func knownRoom(name string) bool {
	for _, r := range rooms {
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
