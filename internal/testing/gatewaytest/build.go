// Package gatewaytest builds the gateway and runs it as a process of its own,
// so that tests meet it as clients and operators do: over the network, through
// its environment, by signals. It knows the wire and nothing of the rooms behind
// it, so that no mistake can be shared by a test and what it tests.
package gatewaytest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

// Main runs a package's tests, fails on leaked goroutines and removes what
// Build has left. Packages that call Build call it from TestMain.
func Main(m *testing.M, options ...goleak.Option) {
	options = append(options, goleak.Cleanup(func(code int) {
		removeBuilds()
		os.Exit(code)
	}))
	goleak.VerifyTestMain(m, options...)
}

// build is one program, compiled at most once.
type build struct {
	once   sync.Once
	path   string
	output []byte // of go build, if it failed
	err    error
}

var builds struct {
	sync.Mutex
	dir    string            // guarded by Mutex; "" until the first build
	byFlag map[string]*build // guarded by Mutex
}

// Build compiles ./cmd/gateway, once for each list of further flags of go build,
// and returns the program's path. It is built with -race if the test is.
func Build(t testing.TB, flags ...string) string {
	t.Helper()
	if raceEnabled {
		flags = append([]string{"-race"}, flags...)
	}
	b, file := buildFor(t, strings.Join(flags, " "))
	b.once.Do(func() {
		args := append([]string{"build", "-buildvcs=false", "-o", file}, flags...)
		b.output, b.err = exec.Command("go", append(args, "herald/cmd/gateway")...).CombinedOutput()
	})
	if b.err != nil {
		t.Fatalf("build the gateway: %v\n%s", b.err, b.output)
	}
	return b.path
}

func buildFor(t testing.TB, flags string) (b *build, file string) {
	t.Helper()
	builds.Lock()
	defer builds.Unlock()
	if builds.dir == "" {
		dir, err := os.MkdirTemp("", "gatewaytest")
		if err != nil {
			t.Fatal(err)
		}
		builds.dir, builds.byFlag = dir, map[string]*build{}
	}
	b = builds.byFlag[flags]
	if b == nil {
		b = &build{path: filepath.Join(builds.dir, "gateway"+strconv.Itoa(len(builds.byFlag)))}
		builds.byFlag[flags] = b
	}
	return b, b.path
}

func removeBuilds() {
	builds.Lock()
	defer builds.Unlock()
	if builds.dir != "" {
		_ = os.RemoveAll(builds.dir)
	}
}
