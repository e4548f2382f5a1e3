//go:build linux

package target

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Confinement is processes that share one processor which does not sleep.
type Confinement struct {
	Idler int // the process that keeps it awake

	idle   *process
	before map[int]unix.CPUSet // where each process was allowed to run
}

// Confine moves processes, with their threads and those they start from then on,
// to one of the processors that this process may use, and keeps that from
// sleeping by a loop of the scheduling class SCHED_IDLE, which yields to
// everything (sched(7)). What is left of a latency is the programs' own: a
// processor that sleeps has to be woken for each message that comes from another
// one, which takes a hypervisor 50 µs or, where it has given the processor away,
// milliseconds. idle=poll on the kernel's command line does the same for bare
// metal.
func Confine(pids []int) (*Confinement, error) {
	var ours, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &ours); err != nil {
		return nil, fmt.Errorf("sched_getaffinity: %w", err)
	}
	one.Set(last(&ours))
	c := &Confinement{before: map[int]unix.CPUSet{}}
	var err error
	if c.idle, err = start("the idle loop", surroundings{bare: true}, "/bin/sh", "-c", "while :; do :; done"); err != nil {
		return nil, err
	}
	c.Idler = c.idle.pid()
	err = errors.Join(
		unix.SchedSetAttr(c.Idler, &unix.SchedAttr{Policy: unix.SCHED_IDLE}, 0),
		unix.SchedSetaffinity(c.Idler, &one),
	)
	for _, pid := range pids {
		var set unix.CPUSet
		if e := unix.SchedGetaffinity(pid, &set); e != nil {
			err = errors.Join(err, fmt.Errorf("sched_getaffinity of %d: %w", pid, e))
			continue
		}
		c.before[pid] = set
		err = errors.Join(err, allow(pid, one))
	}
	if err != nil {
		c.Release()
		return nil, fmt.Errorf("confining to one processor: %w", err)
	}
	return c, nil
}

// Release lets the processes run where they could before, and the processor
// sleep.
func (c *Confinement) Release() {
	for pid, set := range c.before {
		_ = allow(pid, set) // it may have ended
	}
	c.idle.stop()
}

// last is the highest of a set: the lowest tends to have the interrupts.
func last(set *unix.CPUSet) int {
	cpu := len(set)*strconv.IntSize - 1
	for ; cpu > 0 && !set.IsSet(cpu); cpu-- {
	}
	return cpu
}

// allow says where all threads of a process may run. Threads that are started
// meanwhile inherit it from whoever starts them, so it is done when a pass finds
// none that may run elsewhere.
func allow(pid int, set unix.CPUSet) error {
	for {
		tasks, err := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "task", "*"))
		if err != nil || len(tasks) == 0 {
			return errors.Join(err, os.ErrProcessDone)
		}
		moved := false
		for _, task := range tasks {
			tid, err := strconv.Atoi(filepath.Base(task))
			if err != nil {
				continue
			}
			var now unix.CPUSet
			if unix.SchedGetaffinity(tid, &now) != nil || now == set {
				continue // it has ended, or is there
			}
			if err := unix.SchedSetaffinity(tid, &set); err != nil && err != unix.ESRCH {
				return err
			}
			moved = true
		}
		if !moved {
			return nil
		}
	}
}
