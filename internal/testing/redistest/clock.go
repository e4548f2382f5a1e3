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

// Clock is the wall clock of a server of StartWithClock.
type Clock struct {
	t    testing.TB
	file string
}

// StartWithClock is Start for a server whose wall clock the test can step, while it runs
// and across restarts. Its monotonic clock, which measures timeouts, is not changed. It
// needs a C compiler, as the race detector does.
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

// Set steps the clock to the machine's time plus whole seconds, which may be negative.
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
