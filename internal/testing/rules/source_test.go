// Package rules tests properties of the whole checkout: which package may import which,
// minimum versions of dependencies, and that the documents agree with the program.
package rules

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"herald/internal/testing/gatewaytest"
)

func TestMain(m *testing.M) { gatewaytest.Main(m) }

// top is the checkout, seen from this package.
const top = "../../.."

// file is the part of one Go file that the rules check.
type file struct {
	Path    string   // from the top of the checkout: server/stream.go
	Imports []string // import paths
	Env     []string // where it reads the environment: os.Getenv
}

// Package is the name in packageRules that the file belongs to.
func (f file) Package() string { return packageOf(path.Dir(f.Path)) }

// sources returns the module's files that are not tests, for every platform.
func sources(t *testing.T) []file {
	t.Helper()
	var files []file
	for _, p := range packages(t) {
		for _, name := range slices.Concat(p.GoFiles, p.CgoFiles, p.IgnoredGoFiles) {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			rel, err := filepath.Rel(p.Root, filepath.Join(p.Dir, name))
			if err != nil {
				t.Fatal(err)
			}
			f, err := parseFile(filepath.ToSlash(rel), filepath.Join(p.Dir, name), nil)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
		}
	}
	return files
}

// listed is a package as go list describes it.
type listed struct {
	Dir, Root                         string
	GoFiles, CgoFiles, IgnoredGoFiles []string
}

func packages(t *testing.T) []listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=Dir,Root,GoFiles,CgoFiles,IgnoredGoFiles", "./...")
	cmd.Dir = top
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr(err))
	}
	var all []listed
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(p.Dir, "/node_modules/") {
			all = append(all, p)
		}
	}
}

func stderr(err error) []byte {
	var exit *exec.ExitError
	errors.As(err, &exit)
	if exit == nil {
		return nil
	}
	return exit.Stderr
}

// parseFile reads src, or the file name if src is nil.
func parseFile(rel, name string, src any) (file, error) {
	parsed, err := parser.ParseFile(token.NewFileSet(), name, src, parser.SkipObjectResolution)
	if err != nil {
		return file{}, err
	}
	f := file{Path: rel}
	local := map[string]string{} // the name a package has in this file: its path
	for _, spec := range parsed.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return file{}, err
		}
		f.Imports = append(f.Imports, p)
		local[path.Base(p)] = p
		if spec.Name != nil {
			local[spec.Name.Name] = p
		}
	}
	f.Env = readsEnvironment(parsed, local)
	return f, nil
}

// environmentReaders are the functions that read the environment. A dot import would hide
// them, so the import itself counts.
var environmentReaders = []string{
	"os.Getenv", "os.LookupEnv", "os.Environ", "os.ExpandEnv",
	"syscall.Getenv", "syscall.Environ",
	"golang.org/x/sys/unix.Getenv", "golang.org/x/sys/unix.Environ",
}

func readsEnvironment(f *ast.File, local map[string]string) (uses []string) {
	if p := local["."]; p == "os" || p == "syscall" {
		uses = append(uses, `import . "`+p+`"`)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := sel.X.(*ast.Ident); ok {
			if use := local[x.Name] + "." + sel.Sel.Name; slices.Contains(environmentReaders, use) {
				uses = append(uses, use)
			}
		}
		return true
	})
	return uses
}

func TestParseFile(t *testing.T) {
	cases := map[string]int{
		`package p; import "os"; var x = os.Getenv("X")`:                1,
		`package p; import e "os"; var x = e.Environ`:                   1,
		`package p; import . "os"`:                                      1,
		`package p; import "syscall"; var x, _ = syscall.Getenv()`:      1,
		`package p; import "os"; var x = os.ReadFile`:                   0,
		`package p; var os = struct{ Getenv int }{}; var x = os.Getenv`: 0,
	}
	for src, want := range cases {
		f, err := parseFile("a/b.go", "b.go", src)
		if err != nil {
			t.Fatal(err)
		}
		if len(f.Env) != want {
			t.Errorf("%s: reads the environment %d times, want %d", src, len(f.Env), want)
		}
	}
}

func TestSourcesSeesTheModule(t *testing.T) {
	files := sources(t)
	for _, want := range []string{"notify/notify.go", "internal/testing/redistest/redistest.go"} {
		if !slices.ContainsFunc(files, func(f file) bool { return f.Path == want && len(f.Imports) > 0 }) {
			t.Errorf("%s was not read", want)
		}
	}
}
