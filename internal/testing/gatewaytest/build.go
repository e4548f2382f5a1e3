// Package gatewaytest builds the gateway and runs it as a separate process. A test
// drives it as clients and operators do: over the network, through environment
// variables, by signals. The package imports nothing of the gateway, so a test and
// the code under test cannot share a mistake.
package gatewaytest

import (
	"fmt"
	"hash/fnv"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"herald/internal/testing/redistest"
)

// BuildsVariable names an environment variable with a directory that several test
// processes share. A gateway that one of them built there is not built again, so
// the directory must be empty when the test run starts. Without it each process
// builds its own.
const BuildsVariable = "GATEWAYTEST_BUILDS"

// Main runs a package's tests, fails on leaked goroutines and removes the programs
// that Build made. Every package that calls Build calls it from TestMain.
func Main(m *testing.M, options ...goleak.Option) {
	options = append(options, goleak.Cleanup(func(code int) {
		removeBuilds()
		os.Exit(code)
	}))
	goleak.VerifyTestMain(m, options...)
}

// build is one program, compiled at most once in this process.
type build struct {
	once sync.Once
	path string
	err  error // with the output of go build
}

var builds struct {
	sync.Mutex
	own    string            // guarded by Mutex; "" unless this process made a directory
	byFlag map[string]*build // guarded by Mutex
}

// Build compiles ./cmd/gateway once for each list of go build flags and returns
// the program's path. It adds -race if the test was built with -race. Under -short
// it skips the test.
func Build(t testing.TB, flags ...string) string {
	t.Helper()
	redistest.Require(t, "go")
	if raceEnabled {
		flags = append([]string{"-race"}, flags...)
	}
	b, err := buildFor(strings.Join(flags, " "))
	if err != nil {
		t.Fatal(err)
	}
	b.once.Do(func() { b.err = compile(b.path, flags) })
	if b.err != nil {
		t.Fatalf("build the gateway: %v", b.err)
	}
	return b.path
}

// compile builds the program unless another process has. The file lock makes
// processes with the same flags wait for one build.
func compile(file string, flags []string) error {
	lock, err := os.OpenFile(file+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	if _, err := os.Stat(file); err == nil {
		return nil
	}
	args := append([]string{"build", "-buildvcs=false", "-o", file + ".new"}, flags...)
	if out, err := exec.Command("go", append(args, "herald/cmd/gateway")...).CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return os.Rename(file+".new", file)
}

func buildFor(flags string) (*build, error) {
	builds.Lock()
	defer builds.Unlock()
	if b := builds.byFlag[flags]; b != nil {
		return b, nil
	}
	dir := os.Getenv(BuildsVariable)
	if dir == "" {
		if builds.own == "" {
			own, err := os.MkdirTemp("", "gatewaytest")
			if err != nil {
				return nil, err
			}
			builds.own = own
		}
		dir = builds.own
	}
	if builds.byFlag == nil {
		builds.byFlag = map[string]*build{}
	}
	hash := fnv.New64a()
	hash.Write([]byte(flags))
	b := &build{path: filepath.Join(dir, fmt.Sprintf("gateway-%x", hash.Sum64()))}
	builds.byFlag[flags] = b
	return b, nil
}

func removeBuilds() {
	builds.Lock()
	defer builds.Unlock()
	if builds.own != "" {
		_ = os.RemoveAll(builds.own)
	}
}
