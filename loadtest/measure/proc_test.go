//go:build linux

package measure

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	const line = "4711 (a) R (b c) S 17 4711 4711 0 -1 4194304 1234 0 0 0 250 75 3 4 20 0 8 0 12345 1000000 2000 18446744073709551615"
	s, err := parseStat([]byte(line))
	if err != nil || s != (stat{parent: 17, user: 2500 * time.Millisecond, system: 750 * time.Millisecond}) {
		t.Errorf("%+v, %v", s, err)
	}
	for _, bad := range []string{"", "1 (x)", "1 (x) S a 1 1 0 -1 4194304 1234 0 0 0 250 75", "1 (x) S 1 1 1 0 -1 4194304 1234 0 0 0 2x 75 3"} {
		if _, err := parseStat([]byte(bad)); !errors.Is(err, errStat) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestParseRollup(t *testing.T) {
	const text = "00400000-7fff (deleted) ---p 00000000 00:00 0    [rollup]\nRss:   1234 kB\nPss:     1000 kB\nPss_Dirty:  7 kB\nTHPeligible: 0\n"
	m, err := parseRollup([]byte(text))
	if err != nil || m != (Memory{RSS: 1234 << 10, PSS: 1000 << 10}) {
		t.Errorf("%+v, %v", m, err)
	}
	for _, bad := range []string{"", "Rss: x kB\n", "Pss: 5 kB\n"} {
		if m, err := parseRollup([]byte(bad)); err == nil {
			t.Errorf("%q: %+v", bad, m)
		}
	}
}

func TestParseMachineAndStatm(t *testing.T) {
	if d, err := parseMachine([]byte("cpu  100 20 30 99999 5 6 7 8 0 0\ncpu0 1 1 1\n")); err != nil || d != 1500*time.Millisecond {
		t.Errorf("%v, %v", d, err)
	}
	if d, err := parseMachine([]byte("intr 5")); err == nil {
		t.Errorf("%v", d)
	}
	if n, err := parseStatm([]byte("5000 321 100 1 0 900 0\n")); err != nil || n != 321 {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := parseStatm(nil); err == nil {
		t.Error("nothing passes")
	}
}

// The CPU time of this process is measured by the clock and by ticks.
func TestCPUOfThisProcess(t *testing.T) {
	pids := []int{os.Getpid()}
	before, err := CPUOf(pids)
	if err != nil {
		t.Fatal(err)
	}
	for until := before.Total + 60*time.Millisecond; ; {
		now, err := CPUOf(pids)
		if err != nil {
			t.Fatal(err)
		}
		if now.Total >= until {
			used := now.minus(before)
			if ticks := used.User + used.System; ticks < 20*time.Millisecond || ticks > 200*time.Millisecond {
				t.Errorf("%v by the clock, %v by the ticks", used.Total, ticks)
			}
			return
		}
	}
}

func TestMemoryOfThisProcess(t *testing.T) {
	pids := []int{os.Getpid()}
	m, err := MemoryOf(pids)
	rss, err2 := RSSOf(pids)
	if errors.Join(err, err2) != nil || m.RSS < 1<<20 || m.PSS > m.RSS || rss < m.RSS/2 || rss > 2*m.RSS {
		t.Errorf("%+v, %d, %v", m, rss, errors.Join(err, err2))
	}
	if n := FilesOf(pids); n < 3 {
		t.Errorf("%d descriptors", n)
	}
}

func TestAnExitedProcess(t *testing.T) {
	const none = 1 << 30 // above pid_max
	if _, err := CPUOf([]int{none}); err == nil {
		t.Error("CPUOf")
	}
	if _, err := MemoryOf([]int{none}); err == nil {
		t.Error("MemoryOf")
	}
	if _, err := (Processes{Server: []int{none}}).Start(); err == nil {
		t.Error("Start")
	}
}

func TestProcessTree(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "sleep 30 & echo started; wait")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()
	if _, err := out.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	family, err := ProcessTree(cmd.Process.Pid)
	if err != nil || len(family) != 2 || family[0] != cmd.Process.Pid {
		t.Fatalf("%v, %v", family, err)
	}
	for _, pid := range family[1:] {
		if p, err := os.FindProcess(pid); err == nil {
			_ = p.Kill()
		}
	}
	mine, err := ProcessTree(os.Getpid())
	if err != nil || !slices.Contains(mine, cmd.Process.Pid) {
		t.Errorf("%v, %v", mine, err)
	}
}

func TestWatch(t *testing.T) {
	n := int64(0)
	stop := Processes{Server: []int{os.Getpid()}}.Watch(10*time.Millisecond, func() Counts { n += 100; return Counts{Sent: n, Connections: 7} })
	time.Sleep(80 * time.Millisecond) // samples are taken over time
	samples := stop()
	if len(samples) < 2 {
		t.Fatalf("%d samples", len(samples))
	}
	for i, s := range samples {
		if s.RSS < 1<<20 || s.Connections != 7 || s.Sent < 500 || i > 0 && s.At <= samples[i-1].At {
			t.Errorf("%d: %+v", i, s)
		}
	}
}
