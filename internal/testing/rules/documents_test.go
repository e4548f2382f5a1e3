package rules

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// documents are the Markdown files of the top folder and of docs/.
var documents = func() (names []string) {
	for _, pattern := range []string{"*.md", "docs/*.md"} {
		files, err := filepath.Glob(filepath.Join(top, pattern))
		if err != nil || len(files) == 0 {
			panic(fmt.Sprintf("%s: %v, %v", pattern, files, err))
		}
		for _, f := range files {
			name, err := filepath.Rel(top, f)
			if err != nil {
				panic(err)
			}
			names = append(names, filepath.ToSlash(name))
		}
	}
	return names
}()

func document(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(top, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestDocumentsHaveNoDeadLinks(t *testing.T) {
	for _, name := range documents {
		for _, dead := range deadLinks(name, document(t, name)) {
			t.Errorf("%s: %s leads nowhere", name, dead)
		}
	}
}

var (
	fence   = regexp.MustCompile("(?ms)^[ \t]*```.*?^[ \t]*```[ \t]*$")
	code    = regexp.MustCompile("`[^`\n]*`")
	link    = regexp.MustCompile(`\]\(\s*<?([^)\s>]+)>?(?:\s+"[^"]*")?\s*\)|(?m:^\[[^\]]+\]:\s+(\S+))`)
	heading = regexp.MustCompile(`(?m)^#{1,6}\s+(.+?)\s*#*$`)
	scheme  = regexp.MustCompile(`^[a-z][a-z0-9+.-]*:`)
)

// deadLinks returns the relative links of a document whose file, or heading, does
// not exist.
func deadLinks(name, text string) (dead []string) {
	text = code.ReplaceAllString(fence.ReplaceAllString(text, ""), "code")
	for _, m := range link.FindAllStringSubmatch(text, -1) {
		if target := m[1] + m[2]; !scheme.MatchString(target) && !resolves(name, target) {
			dead = append(dead, target)
		}
	}
	return dead
}

func resolves(from, target string) bool {
	file, anchor, hasAnchor := strings.Cut(target, "#")
	if file == "" {
		file = filepath.Base(from)
	}
	b, err := os.ReadFile(filepath.Join(top, filepath.Dir(from), file))
	if err != nil {
		info, statErr := os.Stat(filepath.Join(top, filepath.Dir(from), file))
		return statErr == nil && info.IsDir() && !hasAnchor
	}
	return !hasAnchor || !strings.HasSuffix(file, ".md") || slices.Contains(anchors(string(b)), anchor)
}

// anchors are the names that headings get where Markdown is shown with links:
// lower case, spaces as hyphens, punctuation gone, repetitions numbered.
func anchors(text string) (names []string) {
	seen := map[string]int{}
	for _, m := range heading.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		name := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				return unicode.ToLower(r)
			}
			return -1
		}, m[1])
		if n := seen[name]; n > 0 {
			names = append(names, fmt.Sprintf("%s-%d", name, n))
		} else {
			names = append(names, name)
		}
		seen[name]++
	}
	return names
}

func TestDeadLinks(t *testing.T) {
	cases := map[string]int{
		"[a](go.mod) [b](go.mod#x) [c](notify/)":           0,
		"[a](no-such-file)":                                1,
		"![a](no-such-file.png \"title\")":                 1,
		"[a]: no-such-file":                                1,
		"[a](https://example.com/x) [b](mailto:a@b.c)":     0,
		"```\n[a](no-such-file)\n```\n`[b](nor-this)`":     0,
		"[a](#no-such-heading)":                            1,
		"# Two words, `code`!\n[a](#two-words-code)":       0,
		"# A\n# A\n[a](#a-1)":                              0,
		"[a](notify/#x)":                                   1,
		"```\n# In code\n```\n# Out\n[a](#in-code) [b][c]": 1,
	}
	for text, want := range cases {
		if got := deadLinksIn(t, text); len(got) != want {
			t.Errorf("%q: dead links %v, want %d", text, got, want)
		}
	}
}

// deadLinksIn is deadLinks of a document whose own headings are looked up in it.
func deadLinksIn(t *testing.T, text string) []string {
	t.Helper()
	dir := t.TempDir()
	name := filepath.Join(dir, "a.md")
	for file, content := range map[string]string{name: text, filepath.Join(dir, "go.mod"): "module a\n"} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "notify"), 0o700); err != nil {
		t.Fatal(err)
	}
	abs, err := filepath.Abs(top)
	if err != nil {
		t.Fatal(err)
	}
	rel, err := filepath.Rel(abs, name)
	if err != nil {
		t.Fatal(err)
	}
	return deadLinks(rel, text)
}

var setting = regexp.MustCompile(`\bHERALD_[A-Z][A-Z_]*[A-Z]\b`)

// settings are the distinct names in a text.
func settings(text string) []string {
	names := setting.FindAllString(text, -1)
	slices.Sort(names)
	return slices.Compact(names)
}

// A setting that no document names cannot be found; one that only a document names
// stops the start of a reader who sets it.
func TestDocumentsAndHelpNameTheSameSettings(t *testing.T) {
	known := settings(gatewayHelp(t))
	if len(known) < 10 {
		t.Fatalf("gateway --help names only %v", known)
	}
	text := document(t, "README.md")
	for _, name := range documents {
		if strings.HasPrefix(name, "docs/") {
			text += document(t, name)
		}
	}
	documented := settings(text)
	for _, name := range missing(known, documented) {
		t.Errorf("neither README.md nor docs/ names %s", name)
	}
	for _, name := range missing(documented, known) {
		t.Errorf("README.md or docs/ names %s, which gateway --help lacks", name)
	}
}

var sourceFile = regexp.MustCompile("`([\\w.-]+(?:/[\\w.-]+)+\\.(?:go|lua|js|mjs|conf|sh|txt))(?: \\w+)?`")

func TestDocumentsNameSourceFilesThatExist(t *testing.T) {
	for _, name := range documents {
		if name == "CHANGELOG.md" { // it names files of earlier versions
			continue
		}
		for _, m := range sourceFile.FindAllStringSubmatch(document(t, name), -1) {
			if _, err := os.Stat(filepath.Join(top, m[1])); err != nil {
				t.Errorf("%s: %s does not exist", name, m[1])
			}
		}
	}
}

// maxColumns of a table, and maxWords of its cells: a page must fit a narrow window.
const maxColumns, maxWords, maxWidth = 5, 12, 100

func TestPagesAreNarrow(t *testing.T) {
	for _, name := range documents {
		if name == "README.md" || strings.HasPrefix(name, "docs/") {
			for _, wide := range widths(document(t, name)) {
				t.Errorf("%s: %s", name, wide)
			}
		}
	}
}

var destination = regexp.MustCompile(`\]\([^)]*\)`)

// widths names the lines of prose, and the tables, that are too wide.
func widths(text string) (wide []string) {
	for line := range strings.Lines(fence.ReplaceAllString(text, "")) {
		line = strings.TrimRight(line, "\n")
		if !strings.HasPrefix(line, "|") {
			if n := len([]rune(line)); n > maxWidth && !strings.Contains(line, "](http") {
				wide = append(wide, fmt.Sprintf("%d columns: %s", n, line))
			}
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		if len(cells) > maxColumns {
			wide = append(wide, fmt.Sprintf("%d columns in a table: %s", len(cells), line))
		}
		for _, cell := range cells {
			words := strings.Fields(code.ReplaceAllString(destination.ReplaceAllString(cell, "]"), "code"))
			if len(words) > maxWords {
				wide = append(wide, fmt.Sprintf("a cell of %d words:%s", len(words), cell))
			}
		}
	}
	return wide
}

func TestWidths(t *testing.T) {
	long := strings.Repeat("word ", 25)
	cases := map[string]int{
		long: 1, "```\n" + long + "\n```": 0, "| a | b | c | d | e |": 0, "| a | b | c | d | e | f |": 1,
		"| " + strings.Repeat("word ", 13) + "|": 1, "| `" + long + "` | [a b](" + strings.Repeat("x", 90) + ") |": 0,
	}
	for text, want := range cases {
		if got := widths(text); len(got) != want {
			t.Errorf("%q: %q, want %d", text, got, want)
		}
	}
}

// missing are those of want that got lacks.
func missing(want, got []string) []string {
	return slices.DeleteFunc(slices.Clone(want), func(s string) bool { return slices.Contains(got, s) })
}

func TestSettings(t *testing.T) {
	got := settings("--x is HERALD_* ($HERALD_PING), `HERALD_JWT_KEYS=`, HERALD_PING, XHERALD_NO, HERALD_")
	if !slices.Equal(got, []string{"HERALD_JWT_KEYS", "HERALD_PING"}) {
		t.Errorf("got %v", got)
	}
	if m := missing(got, []string{"HERALD_PING"}); !slices.Equal(m, []string{"HERALD_JWT_KEYS"}) {
		t.Errorf("missing: %v", m)
	}
}
