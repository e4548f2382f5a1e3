package rules

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// machinePath matches absolute paths of one machine. Its parts are joined here so that it
// does not match itself.
var machinePath = regexp.MustCompile(`(^|[^\w./~-])/(` + strings.Join([]string{
	`home/\w`, `Users/\w`, `root/\S`, `work/\S`, `tmp/bash`,
}, "|") + `)|[A-Z]:\\Users\\`)

// No file contains a path of the machine on which it was written.
func TestNoPathOfOneMachine(t *testing.T) {
	for _, name := range ownFiles(t) {
		b, err := os.ReadFile(filepath.Join(top, name))
		if errors.Is(err, fs.ErrNotExist) || bytes.IndexByte(b, 0) >= 0 {
			continue // removed and not committed yet, or no text
		}
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for line := range bytes.Lines(b) {
			if n++; machinePath.Match(line) {
				t.Errorf("%s:%d: %s", name, n, bytes.TrimSpace(line))
			}
		}
	}
}

// ownFiles returns the files that git tracks or does not ignore.
func ownFiles(t *testing.T) []string {
	t.Helper()
	// git also reads a checkout that another user owns, as in a container.
	cmd := exec.CommandContext(t.Context(), "git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = top
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("not a git checkout: git ls-files: %v", err)
	}
	names := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	if len(names) < 10 {
		t.Fatalf("git ls-files: only %q", names)
	}
	return names
}

func TestMachinePath(t *testing.T) {
	slash := "/"
	for text, want := range map[string]bool{
		"cd " + slash + "home/ann/herald":        true,
		`"` + slash + "work/main/x" + `"`:        true,
		"=" + slash + "root/go":                  true,
		"(" + slash + "Users/ann/x)":             true,
		"C:" + `\Users\ann`:                      true,
		"https://example.com" + slash + "work/x": false,
		"the net" + slash + "work/mesh":          false,
		"../work/x, $HOME/x, ~/work/x":           false,
	} {
		if machinePath.MatchString(text) != want {
			t.Errorf("%q: want %t", text, want)
		}
	}
}
