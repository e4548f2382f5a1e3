package deploy

import (
	"encoding/json"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"herald/internal/testing/redistest"
)

// dockerfile holds the instructions of one stage each: the build, and what ships.
type dockerfile struct{ build, final []string }

func parseDockerfile(t *testing.T) dockerfile {
	t.Helper()
	var stages [][]string
	for line := range strings.Lines(read(t, "../../deploy/Dockerfile")) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if strings.HasPrefix(line, "FROM ") {
			stages = append(stages, nil)
		}
		stages[len(stages)-1] = append(stages[len(stages)-1], line)
	}
	if len(stages) != 2 {
		t.Fatalf("the Dockerfile has %d stages, want 2", len(stages))
	}
	return dockerfile{build: stages[0], final: stages[1]}
}

// argument returns the rest of the only instruction that begins with start.
func argument(t *testing.T, stage []string, start string) string {
	t.Helper()
	var found []string
	for _, line := range stage {
		if rest, ok := strings.CutPrefix(line, start); ok {
			found = append(found, strings.TrimSpace(rest))
		}
	}
	if len(found) != 1 {
		t.Fatalf("the Dockerfile has %d instructions %q, want 1", len(found), start)
	}
	return found[0]
}

func TestImageIsBuiltWithTheModulesGo(t *testing.T) {
	want := regexp.MustCompile(`(?m)^go (\S+)$`).FindStringSubmatch(read(t, "../../go.mod"))[1]
	from := argument(t, parseDockerfile(t).build, "FROM ")
	if !strings.HasPrefix(from, "golang:"+want+"-") {
		t.Errorf("the image is built FROM %s, go.mod asks for go %s", from, want)
	}
}

func TestImageHasNothingButTheProgram(t *testing.T) {
	final := parseDockerfile(t).final
	if from := argument(t, final, "FROM "); from != "scratch" {
		t.Errorf("FROM %s", from)
	}
	if certs := argument(t, final, "COPY --from=build /etc/ssl/"); certs != "certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt" {
		t.Errorf("certificates: %s", certs)
	}
	if uid, _ := user(t, final); uid == 0 {
		t.Error("the program runs as root")
	}
	_, port, err := net.SplitHostPort(compose(t).Services["gateway1"].value(t, "HERALD_LISTEN"))
	if err != nil || argument(t, final, "EXPOSE ") != port {
		t.Errorf("EXPOSE %s, but compose listens on %s", argument(t, final, "EXPOSE "), port)
	}
}

// user is the numeric USER of the image.
func user(t *testing.T, stage []string) (uid, gid uint32) {
	t.Helper()
	u, g, _ := strings.Cut(argument(t, stage, "USER "), ":")
	ids := [2]uint32{}
	for i, s := range []string{u, g} {
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			t.Fatalf("USER %s:%s is not numeric", u, g)
		}
		ids[i] = uint32(n)
	}
	return ids[0], ids[1]
}

// The image without an engine: its build command on the files that .dockerignore
// lets through, then its entry point and health check as its user in a root
// directory that holds nothing else, in the environment of compose.
func TestImageRunsAlone(t *testing.T) {
	redistest.Require(t, "redis-server")
	if os.Geteuid() != 0 {
		redistest.Missing(t, "chroot needs root")
	}
	file := parseDockerfile(t)
	root := t.TempDir()
	buildImage(t, argument(t, file.build, "RUN CGO_ENABLED=0 go build "), root)
	_, port, err := net.SplitHostPort(redistest.Start(t).Addr)
	if err != nil {
		t.Fatal(err)
	}
	free, err := redistest.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	env := append(compose(t).Services["gateway1"].environment(testValues()),
		"REDIS_URL=redis://127.0.0.1:"+port, "HERALD_LISTEN=127.0.0.1:"+strconv.Itoa(free), "HERALD_ADMIN_LISTEN=off")
	entry := execForm(t, argument(t, file.final, "ENTRYPOINT "))
	inImage := func(args ...string) *exec.Cmd {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env, cmd.Dir = env, "/"
		uid, gid := user(t, file.final)
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Chroot: root, Credential: &syscall.Credential{Uid: uid, Gid: gid}, Pdeathsig: syscall.SIGKILL,
		}
		return cmd
	}
	if out, err := inImage(entry[0], "--version").CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != testVersion {
		t.Errorf("the image's version is %q, %v; want the build argument %s", out, err, testVersion)
	}
	_, check, _ := strings.Cut(argument(t, file.final, "HEALTHCHECK "), "CMD ")
	if out, err := inImage(execForm(t, check)...).CombinedOutput(); err == nil {
		t.Fatalf("the health check succeeds before the program runs: %s", out)
	}
	gateway := inImage(entry...)
	if err := gateway.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = gateway.Process.Kill(); _ = gateway.Wait() })
	eventually(t, "the health check succeeds", func() bool { return inImage(execForm(t, check)...).Run() == nil })
}

func execForm(t *testing.T, list string) (args []string) {
	t.Helper()
	if err := json.Unmarshal([]byte(list), &args); err != nil {
		t.Fatalf("%s is not in the exec form: %v", list, err)
	}
	return args
}

const testVersion = "v1.2.3-test" // value of the build argument VERSION

// buildImage runs the Dockerfile's go build with root in the image's place.
func buildImage(t *testing.T, arguments, root string) {
	t.Helper()
	const out = "-o /gateway "
	if !strings.Contains(arguments, out) {
		t.Fatalf("go build %s does not make /gateway", arguments)
	}
	script := "go build " + strings.Replace(arguments, out, `-o "$ROOT/gateway" `, 1)
	cmd := exec.CommandContext(t.Context(), "sh", "-c", script)
	cmd.Dir = buildContext(t)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "ROOT="+root, "VERSION="+testVersion)
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, b)
	}
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
}

// buildContext copies what .dockerignore lets through.
func buildContext(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	ignored := strings.Fields(regexp.MustCompile(`(?m)^#.*$`).ReplaceAllString(read(t, "../../.dockerignore"), ""))
	err := filepath.WalkDir("../..", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(name, "../../")
		switch {
		case name == "../..":
			return nil
		case ignores(t, ignored, rel) && d.IsDir():
			return fs.SkipDir
		case ignores(t, ignored, rel):
			return nil
		case d.IsDir():
			return os.Mkdir(filepath.Join(dir, rel), 0o755)
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, rel), b, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// ignores knows the two forms of pattern that .dockerignore uses: a path from the
// top, and **/ before a pattern for the last element at any depth.
func ignores(t *testing.T, patterns []string, rel string) bool {
	t.Helper()
	for _, p := range patterns {
		subject := rel
		if rest, ok := strings.CutPrefix(p, "**/"); ok {
			p, subject = rest, path.Base(rel)
		}
		match, err := path.Match(p, subject)
		if err != nil || strings.HasPrefix(p, "!") || strings.Contains(p, "**") {
			t.Fatalf(".dockerignore: this test does not know the pattern %q", p)
		}
		if match {
			return true
		}
	}
	return false
}
