package rules

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The tables of docs/architecture.md are compared with the code: a row is
// "`path/file.go funcName`" in the first column.
const architecture = "docs/architecture.md"

func TestGoroutineTableAgreesWithTheCode(t *testing.T) {
	compareTable(t, "Goroutines", functions(t, startsGoroutine))
}

func TestKeyTableAgreesWithTheCode(t *testing.T) {
	compareTable(t, "Redis keys", functions(t, namesKey))
}

// Every mutex of the lock order exists.
func TestLockOrderNamesMutexes(t *testing.T) {
	named := regexp.MustCompile("`(\\w+)\\.(\\w+)`").FindAllStringSubmatch(section(document(t, architecture), "Lock order"), -1)
	if len(named) < 2 {
		t.Fatalf("the lock order of %s names %d mutexes", architecture, len(named))
	}
	mutexes := map[string]bool{}
	eachFile(t, func(_ string, f *ast.File) {
		ast.Inspect(f, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			if s, ok := spec.Type.(*ast.StructType); ok {
				for _, field := range s.Fields.List {
					if sel, ok := field.Type.(*ast.SelectorExpr); ok && strings.HasSuffix(sel.Sel.Name, "Mutex") {
						for _, name := range field.Names {
							mutexes[spec.Name.Name+"."+name.Name] = true
						}
					}
				}
			}
			return true
		})
	})
	for _, m := range named {
		if name := m[1] + "." + m[2]; !mutexes[name] {
			t.Errorf("%s: the lock order names %s, which is no mutex of the code", architecture, name)
		}
	}
}

// compareTable compares the first column of the table under a heading with the code.
func compareTable(t *testing.T, heading string, code []string) {
	t.Helper()
	var listed []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([\\w./]+\\.go \\w+)`").FindAllStringSubmatch(section(document(t, architecture), heading), -1) {
		listed = append(listed, m[1])
	}
	if len(code) < 5 {
		t.Fatalf("only %v found in the code", code)
	}
	for _, name := range missing(code, listed) {
		t.Errorf("%s, %s: no row for %s", architecture, heading, name)
	}
	for _, name := range missing(listed, code) {
		t.Errorf("%s, %s: nothing in the code for %s", architecture, heading, name)
	}
}

// section returns the text under a heading of the second level.
func section(text, heading string) string {
	_, rest, _ := strings.Cut(text, "\n## "+heading+"\n")
	body, _, _ := strings.Cut(rest, "\n## ")
	return body
}

// functions returns "path/file.go funcName", sorted, for each function of the program
// that is wanted. The load generator and test helpers are not part of the program.
func functions(t *testing.T, wanted func(*ast.FuncDecl) bool) (names []string) {
	t.Helper()
	eachFile(t, func(path string, f *ast.File) {
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && wanted(fn) {
				names = append(names, path+" "+fn.Name.Name)
			}
		}
	})
	slices.Sort(names)
	return slices.Compact(names)
}

func eachFile(t *testing.T, visit func(path string, f *ast.File)) {
	t.Helper()
	for _, f := range sources(t) {
		if p := f.Package(); p == "loadtest" || p == "internal/testing" || p == "scripts" {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(top, f.Path), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		visit(f.Path, parsed)
	}
}

// startsGoroutine finds go statements, and calls of sync.WaitGroup.Go and the like.
func startsGoroutine(fn *ast.FuncDecl) (found bool) {
	ast.Inspect(fn, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			found = true
		case *ast.CallExpr:
			if sel, ok := n.Fun.(*ast.SelectorExpr); ok && (sel.Sel.Name == "Go" || sel.Sel.Name == "DoChan") {
				found = true
			}
		}
		return true
	})
	return found
}

// namesKey finds functions whose name ends in Key and that return one string.
func namesKey(fn *ast.FuncDecl) bool {
	if fn.Recv != nil || !strings.HasSuffix(fn.Name.Name, "Key") || fn.Type.Results.NumFields() != 1 {
		return false
	}
	result, ok := fn.Type.Results.List[0].Type.(*ast.Ident)
	return ok && result.Name == "string"
}
