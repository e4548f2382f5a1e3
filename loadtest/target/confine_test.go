//go:build linux

package target

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// allowed returns the distinct CPU sets of the threads of a process.
func allowed(t *testing.T, pid int) map[unix.CPUSet]bool {
	t.Helper()
	sets := map[unix.CPUSet]bool{}
	tasks, _ := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "task", "*"))
	for _, task := range tasks {
		tid, _ := strconv.Atoi(filepath.Base(task))
		var set unix.CPUSet
		if unix.SchedGetaffinity(tid, &set) == nil { // otherwise it has exited
			sets[set] = true
		}
	}
	return sets
}

func TestConfine(t *testing.T) {
	other, err := start("another process", processOptions{}, "/bin/sh", "-c", "read x")
	if err != nil {
		t.Fatal(err)
	}
	defer other.stop()
	pids := []int{os.Getpid(), other.pid()}
	before := allowed(t, os.Getpid())
	c, err := Confine(pids)
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range append(pids, c.Spinner) {
		sets := allowed(t, pid)
		for set := range sets {
			if len(sets) != 1 || set.Count() != 1 {
				t.Errorf("process %d may run on %d CPUs, with %d distinct sets", pid, set.Count(), len(sets))
			}
		}
	}
	attr, err := unix.SchedGetAttr(c.Spinner, 0)
	if err != nil || attr.Policy != unix.SCHED_IDLE {
		t.Errorf("the busy loop has policy %+v, %v", attr, err)
	}
	c.Release()
	for _, pid := range pids {
		for set := range allowed(t, pid) {
			if !before[set] {
				t.Errorf("process %d does not have its CPU set back", pid)
			}
		}
	}
	if unix.Kill(c.Spinner, 0) == nil {
		t.Error("the busy loop still runs")
	}
}

func TestConfineReportsAnExitedProcess(t *testing.T) {
	gone, err := start("a process that ends", processOptions{}, "/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	<-gone.exited
	if c, err := Confine([]int{gone.pid()}); err == nil {
		c.Release()
		t.Error("no error")
	}
}

func TestLast(t *testing.T) {
	for _, cpu := range []int{0, 1, 63, 64, 1023} {
		var set unix.CPUSet
		set.Set(0)
		set.Set(cpu)
		if got := last(&set); got != cpu {
			t.Errorf("%d, want %d", got, cpu)
		}
	}
}
