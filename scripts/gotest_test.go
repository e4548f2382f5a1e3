// Package scripts tests the shell scripts beside it.
package scripts

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// runGotest runs gotest.sh on a module of one package per file body given, named
// a, b, …, and returns what it printed and its exit code.
func runGotest(t *testing.T, bodies ...string) (output string, code int) {
	t.Helper()
	script, err := filepath.Abs("gotest.sh")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write(t, dir, "go.mod", "module m\n\ngo 1.26\n")
	for i, body := range bodies {
		name := string(rune('a' + i))
		write(t, filepath.Join(dir, name), name+"_test.go", "package "+name+"\n"+body)
	}
	cmd := exec.CommandContext(t.Context(), "sh", script, "-count=1", "./...")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestGotest(t *testing.T) {
	const (
		passes = "import \"testing\"\nfunc TestP(t *testing.T) { t.Log(\"quiet\") }\n"
		skips  = "import (\"fmt\"; \"testing\")\n" +
			"func TestS(t *testing.T) { fmt.Print(\"unfinished\"); t.Skip(\"no moon\") }\n" +
			"func TestT(t *testing.T) { for _, s := range []string{\"x\", \"y\"} { t.Run(s, func(t *testing.T) { t.Parallel(); t.Skip(\"why \" + s) }) } }\n" +
			"func TestU(t *testing.T) { t.SkipNow() }\n"
		fails  = "import \"testing\"\nfunc TestF(t *testing.T) { t.Error(\"loud\") }\n"
		panics = "import \"testing\"\nfunc TestB(t *testing.T) { panic(\"boom\") }\n"
		broken = "func x() { y }\n"
	)
	cases := []struct {
		name   string
		bodies []string
		code   int
		want   []string
	}{
		{"all well", []string{passes}, 0, []string{"ok  \tm/a\t", "\nskipped: nothing\n"}},
		{"skips", []string{passes, skips}, 0, []string{"ok  \tm/b\t", "m/b TestS (no moon)", "m/b TestT/x (why x)", "m/b TestT/y (why y)", "; m/b TestU\n"}},
		{"a failure beside skips", []string{fails, skips}, 1, []string{"loud", "--- FAIL: TestF", "FAIL\tm/a\t", "ok  \tm/b\t", "m/b TestS (no moon)"}},
		{"a panic", []string{panics}, 1, []string{"panic: boom", "FAIL\tm/a\t"}},
		{"a package that does not compile", []string{broken, passes}, 1, []string{"undefined: y", "FAIL\tm/a [build failed]", "ok  \tm/b\t"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			out, code := runGotest(t, c.bodies...)
			if code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			for _, want := range c.want {
				if !strings.Contains(out, want) {
					t.Errorf("no %q", want)
				}
			}
			if strings.Contains(out, "quiet") || strings.Contains(out, "=== RUN") {
				t.Error("it prints what go test prints only with -v")
			}
			if t.Failed() {
				t.Log(out)
			}
		})
	}
}
