package rules

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"herald/internal/testing/gatewaytest"
)

var update = flag.Bool("update", false, "write the generated parts of the documents")

// Run `go test ./internal/testing/rules -run Generated -update` after a change.
func TestGeneratedPartsOfDocumentsAreCurrent(t *testing.T) {
	parts := []struct {
		document, name string
		generate       func(*testing.T) string
	}{
		{"docs/settings.md", "settings", func(t *testing.T) string {
			text, err := settingsPage(gatewayHelp(t), defaults(document(t, "cmd/gateway/config.go")+document(t, "cmd/gateway/sessions.go")))
			if err != nil {
				t.Fatal(err)
			}
			return text
		}},
		{"docs/architecture.md", "packages", func(t *testing.T) string { return packageDiagram(listPackages(t)) }},
	}
	for _, p := range parts {
		old := document(t, p.document)
		text, err := replacePart(old, p.name, p.generate(t))
		switch {
		case err != nil:
			t.Errorf("%s: %v", p.document, err)
		case text == old:
		case *update:
			if err := os.WriteFile(filepath.Join(top, p.document), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		default:
			t.Errorf("%s: the part %q is out of date: run go test ./internal/testing/rules -run Generated -update", p.document, p.name)
		}
	}
}

// replacePart replaces the text between two comments, <!-- NAME: generated --> and
// <!-- NAME: end -->, which must be there once each.
func replacePart(text, name, part string) (string, error) {
	begin, end := "<!-- "+name+": generated -->\n", "<!-- "+name+": end -->"
	before, rest, ok := strings.Cut(text, begin)
	_, after, closed := strings.Cut(rest, end)
	if !ok || !closed || strings.Contains(after, begin) {
		return "", fmt.Errorf("no part between %q and %q", begin, end)
	}
	return before + begin + part + end + after, nil
}

func TestReplacePart(t *testing.T) {
	got, err := replacePart("a\n<!-- x: generated -->\nold\n<!-- x: end -->\nb", "x", "new\n")
	if want := "a\n<!-- x: generated -->\nnew\n<!-- x: end -->\nb"; err != nil || got != want {
		t.Errorf("got %q, %v", got, err)
	}
	for _, text := range []string{"", "<!-- x: generated -->\n", "<!-- x: end --><!-- x: generated -->\n"} {
		if _, err := replacePart(text, "x", ""); err == nil {
			t.Errorf("%q: accepted", text)
		}
	}
}

// settingGroups are the headings of docs/settings.md, and what the settings below
// them begin with. The first match counts.
var settingGroups = []struct {
	heading  string
	prefixes []string
}{
	{"Addresses and Redis", []string{"REDIS_", "HERALD_LISTEN", "HERALD_ADMIN_", "HERALD_STRICT", "HERALD_WAIT_", "HERALD_LOCK_", "HERALD_JANITOR"}},
	{"Credentials", []string{"HERALD_API_", "HERALD_JWT_", "HERALD_JWKS_", "HERALD_ALLOWED_", "HERALD_TRUSTED_"}},
	{"Limits", []string{"HERALD_PUBLISH_", "HERALD_CONNECT_", "HERALD_MAX_", "HERALD_LOG_LENGTH", "HERALD_LOG_RETENTION"}},
	{"Sessions", []string{"HERALD_SESSION_"}},
	{"Recipients", []string{"HERALD_RECIPIENTS_"}},
	{"Process", []string{"HERALD_PING", "HERALD_DRAIN", "HERALD_EVENT_", "HERALD_DEMO", "HERALD_LOG_"}},
}

var (
	flagStart = regexp.MustCompile(`^ {2,6}(?:-\w, )? *(--[a-z][a-z-]*)(?:=(\S+))?(?:\s{2,}(.*))?$`)
	variable  = regexp.MustCompile(`\s*\(\$([A-Z_]+)\)\.?$`)
	angle     = regexp.MustCompile(`[\w:]*<[^<>]+>|\S*\w\*\S*`)
)

// settingsPage is the list of docs/settings.md: each flag of `gateway --help` that
// has a variable, below the heading of its group, with the default that a placeholder
// hides in the help.
func settingsPage(help string, defaults map[string]string) (string, error) {
	entries := map[string]string{}
	var order []string
	for _, flag := range helpFlags(help) {
		m := variable.FindStringSubmatch(flag.text)
		if m == nil {
			continue
		}
		form := "`" + flag.name + "`"
		if flag.value != "" {
			form = "`" + flag.name + "=" + flag.value + "`"
		}
		text := angle.ReplaceAllString(strings.TrimSuffix(flag.text, m[0]), "`$0`")
		if d := defaults[flag.name]; d != "" && d != "0" && d != flag.value {
			text += ". Default: `" + d + "`"
		}
		entries[m[1]] = wrap(fmt.Sprintf("- `%s`, %s. %s.", m[1], form, text), "  ")
		order = append(order, m[1])
	}
	var b strings.Builder
	for _, g := range settingGroups {
		fmt.Fprintf(&b, "\n## %s\n\n", g.heading)
		for _, name := range order {
			if text := entries[name]; text != "" && hasAnyPrefix(name, g.prefixes) {
				b.WriteString(text)
				delete(entries, name)
			}
		}
	}
	for name := range entries {
		return "", fmt.Errorf("%s is in no group of settingGroups", name)
	}
	return b.String() + "\n", nil
}

var (
	field      = regexp.MustCompile("(?m)^\t(\\w+)\\s+\\S+\\s+`(.*)`$")
	nameTag    = regexp.MustCompile(`\bname:"([^"]*)"`)
	defaultTag = regexp.MustCompile(`\bdefault:"([^"]*)"`)
	wordStart  = regexp.MustCompile(`([a-z0-9])([A-Z])`)
)

// defaults reads the defaults of flags from the tags of Go structs.
func defaults(source string) map[string]string {
	list := map[string]string{}
	for _, m := range field.FindAllStringSubmatch(source, -1) {
		name := strings.ToLower(wordStart.ReplaceAllString(m[1], "$1-$2"))
		if tag := nameTag.FindStringSubmatch(m[2]); tag != nil {
			name = tag[1]
		}
		if tag := defaultTag.FindStringSubmatch(m[2]); tag != nil {
			list["--"+name] = tag[1]
		}
	}
	return list
}

func hasAnyPrefix(s string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(s, p) })
}

type helpFlag struct{ name, value, text string }

// helpFlags reads the flags of a help text, whose descriptions continue on indented lines.
func helpFlags(help string) (flags []helpFlag) {
	_, help, _ = strings.Cut(help, "\nFlags:\n")
	for line := range strings.Lines(help) {
		line = strings.TrimRight(line, "\n")
		if m := flagStart.FindStringSubmatch(line); m != nil {
			flags = append(flags, helpFlag{m[1], strings.Trim(m[2], `"`), m[3]})
		} else if len(flags) > 0 && strings.HasPrefix(line, "      ") {
			last := &flags[len(flags)-1]
			last.text = strings.TrimSpace(last.text + " " + strings.TrimSpace(line))
		} else if strings.HasPrefix(line, "Commands:") {
			break
		}
	}
	return flags
}

// wrap breaks text at 98 columns; further lines begin with indent.
func wrap(text, indent string) string {
	var b strings.Builder
	column := 0
	for i, word := range strings.Fields(text) {
		n := len([]rune(word))
		switch {
		case i == 0:
		case column+1+n > 98:
			b.WriteString("\n" + indent)
			column = len(indent)
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += n
	}
	return b.String() + "\n"
}

func TestSettingsPage(t *testing.T) {
	help := "x\n\nFlags:\n  -h, --help           Help.\n      --ping=25s       Between pings\n                       to one ($HERALD_PING).\n" +
		"      --redis-url=URL\n                       A Redis at <host>\n                       ($REDIS_URL).\n      --version        Print.\n\nCommands:\n  serve [flags]\n"
	got, err := settingsPage(help, defaults("\tRedisURL string `name:\"redis-url\" default:\"none\"`\n\tPing time.Duration `default:\"25s\"`\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"- `HERALD_PING`, `--ping=25s`. Between pings to one.\n", "- `REDIS_URL`, `--redis-url=URL`. A Redis at `<host>`. Default: `none`.\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %q", want, got)
		}
	}
	if _, err := settingsPage("\nFlags:\n      --new=1      New ($HERALD_NEW).\n", nil); err == nil {
		t.Error("a setting without a group was accepted")
	}
}

func gatewayHelp(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), gatewaytest.Build(t), "--help").CombinedOutput()
	if err != nil {
		t.Fatalf("gateway --help: %v\n%s", err, out)
	}
	return string(out)
}

type goPackage struct {
	ImportPath string
	Imports    []string
}

func listPackages(t *testing.T) (list []goPackage) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", "./...")
	cmd.Dir = top
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr(err))
	}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return list
		} else if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
}

// packageDiagram draws which package of the program imports which, in Mermaid.
// An import that another path implies already is left out, and so are test helpers
// and the load generator, which import nothing of the program but notify.
func packageDiagram(list []goPackage) string {
	imports := map[string][]string{}
	for _, p := range list {
		if name, ok := strings.CutPrefix(p.ImportPath, module); ok && drawn(name) {
			imports[name] = nil
			for _, i := range p.Imports {
				if other, ok := strings.CutPrefix(i, module); ok && drawn(other) {
					imports[name] = append(imports[name], other)
				}
			}
		}
	}
	var edges []string
	for from, all := range imports {
		for _, to := range all {
			implied := slices.ContainsFunc(all, func(via string) bool { return via != to && reaches(imports, via, to) })
			if !implied {
				edges = append(edges, fmt.Sprintf("  %s --> %s\n", from, to))
			}
		}
	}
	slices.Sort(edges)
	var alone []string
	for name := range imports {
		if !slices.ContainsFunc(edges, func(e string) bool { return slices.Contains(strings.Fields(e), name) }) {
			alone = append(alone, "  "+name+"\n")
		}
	}
	slices.Sort(alone)
	return "```mermaid\nflowchart LR\n" + strings.Join(edges, "") + strings.Join(alone, "") + "```\n"
}

func drawn(name string) bool {
	return !strings.HasPrefix(name, "internal/testing") && !hasAnyPrefix(name+"/", []string{"tests/", "loadtest/", "scripts/"})
}

func reaches(imports map[string][]string, from, to string) bool {
	return from == to || slices.ContainsFunc(imports[from], func(next string) bool { return reaches(imports, next, to) })
}

func TestPackageDiagram(t *testing.T) {
	got := packageDiagram([]goPackage{
		{"herald/cmd/gateway", []string{"fmt", "herald/server", "herald/notify"}},
		{"herald/server", []string{"herald/notify"}},
		{"herald/notify", nil}, {"herald/web", nil}, {"herald/loadtest/wire", []string{"herald/notify"}},
	})
	want := "```mermaid\nflowchart LR\n  cmd/gateway --> server\n  server --> notify\n  web\n```\n"
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
