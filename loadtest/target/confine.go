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

// Confinement is a group of processes pinned to one CPU that is kept awake.
type Confinement struct {
	Spinner int // pid of the process that keeps the CPU awake

	idle   *process
	before map[int]unix.CPUSet // CPU set of each process before
}

// Confine pins processes, with their current and future threads, to one of the CPUs
// that this process may use. It keeps the CPU awake with a busy loop of the
// scheduling class SCHED_IDLE, which yields to everything (sched(7)).
//
// On a VM, waking an idle CPU for a message takes 50 µs, or milliseconds after the
// hypervisor has given it away. Confine removes that from latencies. On bare metal
// the kernel parameter idle=poll has the same effect.
func Confine(pids []int) (*Confinement, error) {
	var ours, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &ours); err != nil {
		return nil, fmt.Errorf("sched_getaffinity: %w", err)
	}
	one.Set(last(&ours))
	c := &Confinement{before: map[int]unix.CPUSet{}}
	var err error
	if c.idle, err = start("the busy loop", processOptions{bare: true}, "/bin/sh", "-c", "while :; do :; done"); err != nil {
		return nil, err
	}
	c.Spinner = c.idle.pid()
	err = errors.Join(
		unix.SchedSetAttr(c.Spinner, &unix.SchedAttr{Policy: unix.SCHED_IDLE}, 0),
		unix.SchedSetaffinity(c.Spinner, &one),
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
		return nil, fmt.Errorf("pin to one CPU: %w", err)
	}
	return c, nil
}

// Release restores the CPU sets of the processes and stops the busy loop.
func (c *Confinement) Release() {
	for pid, set := range c.before {
		_ = allow(pid, set) // it may have exited
	}
	c.idle.stop()
}

// last returns the highest CPU of a set: the lowest often handles interrupts.
func last(set *unix.CPUSet) int {
	cpu := len(set)*strconv.IntSize - 1
	for ; cpu > 0 && !set.IsSet(cpu); cpu-- {
	}
	return cpu
}

// allow sets the CPU set of all threads of a process. New threads inherit it from
// their creator, so allow repeats until a pass finds no thread with another set.
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
				continue // the thread has exited, or has the set already
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
