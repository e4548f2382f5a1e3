// Package scripts tests the shell scripts beside it.
package scripts

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// runGotest runs gotest.sh in a module of one package per body, named a, b, …,
// and returns its output and exit code.
func runGotest(t *testing.T, runs, bodies []string) (output string, code int) {
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
	cmd := exec.CommandContext(t.Context(), "sh", append([]string{script}, runs...)...)
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
		many = "import (\"fmt\"; \"testing\")\n" +
			"func TestM(t *testing.T) { for i := range 7 { t.Run(fmt.Sprint(i), func(t *testing.T) { t.Skip(\"same\") }) } }\n"
		slow = "import (\"testing\"; \"time\")\n" +
			"func TestFast(t *testing.T) {}\nfunc TestSlow(t *testing.T) { t.Run(\"sub\", func(t *testing.T) { time.Sleep(300 * time.Millisecond) }) }\n"
		fails  = "import \"testing\"\nfunc TestF(t *testing.T) { t.Error(\"loud\") }\n"
		panics = "import \"testing\"\nfunc TestB(t *testing.T) { panic(\"boom\") }\n"
		broken = "func x() { y }\n"
	)
	all := []string{"-count=1 ./..."}
	cases := []struct {
		name   string
		runs   []string
		bodies []string
		code   int
		want   []string
	}{
		{"all pass", all, []string{passes}, 0, []string{"ok  \tm/a\t", "\nskipped: 0 of 1 tests\n"}},
		{"skips", all, []string{passes, skips}, 0, []string{
			"ok  \tm/b\t", "\nskipped: 4 of 6 tests; no moon: m/b TestS; ", "why x: m/b TestT/x", "why y: m/b TestT/y", "; no reason given: m/b TestU\n",
		}},
		{"many skips for one reason", all, []string{many}, 0, []string{"skipped: 7 of 8 tests; same: m/a TestM/0, ", "m/a TestM/4 and 2 more\n"}},
		{"the slowest first", all, []string{slow}, 0, []string{"slowest tests:\n N s  m/a TestSlow\n N s  m/a TestFast\n"}},
		{"several runs", []string{"-count=1 ./a", "-count=1 ./b"}, []string{fails, passes}, 1, []string{"FAIL\tm/a\t", "ok  \tm/b\t", "skipped: 0 of 2 tests"}},
		{"a failure beside skips", all, []string{fails, skips}, 1, []string{"loud", "--- FAIL: TestF", "FAIL\tm/a\t", "ok  \tm/b\t", "no moon: m/b TestS"}},
		{"a panic", all, []string{panics}, 1, []string{"panic: boom", "FAIL\tm/a\t"}},
		{"a package that does not compile", all, []string{broken, passes}, 1, []string{"undefined: y", "FAIL\tm/a [build failed]", "ok  \tm/b\t"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			out, code := runGotest(t, c.runs, c.bodies)
			out = regexp.MustCompile(` +\d+\.\d\d s `).ReplaceAllString(out, " N s ")
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
