package redistest

import (
	_ "embed"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

//go:embed testdata/clock.c
var clockSource []byte

// Clock is what a server that StartWithClock started takes for the time.
type Clock struct {
	t    testing.TB
	file string
}

// StartWithClock is Start of a server whose wall clock the test steps, while it
// runs and across restarts. Its monotonic clock, by which it waits, goes on. It takes
// a C compiler, as the race detector does.
func StartWithClock(t testing.TB, args ...string) (*Server, *Clock) {
	t.Helper()
	dir := t.TempDir()
	source, library := filepath.Join(dir, "clock.c"), filepath.Join(dir, "clock.so")
	if err := os.WriteFile(source, clockSource, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(Require(t, "cc"), "-shared", "-fPIC", "-o", library, source).CombinedOutput(); err != nil {
		t.Fatalf("cc: %v\n%s", err, out)
	}
	c := &Clock{t: t, file: filepath.Join(dir, "ahead")}
	c.Set(0)
	return start(t, []string{"LD_PRELOAD=" + library, "REDISTEST_CLOCK=" + c.file}, args), c
}

// Set puts the clock ahead of the machine's, or behind it, by whole seconds.
func (c *Clock) Set(ahead time.Duration) {
	c.t.Helper()
	// Written in place: the server has the file's page mapped.
	f, err := os.OpenFile(c.file, os.O_WRONLY|os.O_CREATE, 0o600)
	if err == nil {
		err = binary.Write(f, binary.NativeEndian, int64(ahead/time.Second))
		_ = f.Close()
	}
	if err != nil {
		c.t.Fatalf("step clock: %v", err)
	}
}
