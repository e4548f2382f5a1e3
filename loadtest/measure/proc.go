//go:build linux

package measure

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// CPU is the CPU time of processes.
type CPU struct {
	Total        time.Duration // resolution: a nanosecond
	User, System time.Duration // resolution: a clock tick
}

func (c CPU) plus(o CPU) CPU  { return CPU{c.Total + o.Total, c.User + o.User, c.System + o.System} }
func (c CPU) minus(o CPU) CPU { return CPU{c.Total - o.Total, c.User - o.User, c.System - o.System} }

// tick is the unit of /proc/<pid>/stat: USER_HZ, which is 100 on every
// architecture that Go runs on.
const tick = time.Second / 100

// CPUOf returns the CPU time of processes so far, including exited threads.
func CPUOf(pids []int) (sum CPU, err error) {
	for _, pid := range pids {
		b, err := os.ReadFile(procFile(pid, "stat"))
		if err != nil {
			return CPU{}, err
		}
		s, err := parseStat(b)
		if err != nil {
			return CPU{}, fmt.Errorf("%s: %w", procFile(pid, "stat"), err)
		}
		cpu := CPU{s.user + s.system, s.user, s.system}
		var t unix.Timespec
		if unix.ClockGettime(processClock(pid), &t) == nil {
			cpu.Total = time.Duration(t.Nano())
		}
		sum = sum.plus(cpu)
	}
	return sum, nil
}

// processClock returns the CPU clock of another process (clock_getcpuclockid(3)).
func processClock(pid int) int32 { return ^int32(pid)<<3 | 2 }

func procFile(pid int, name string) string {
	return filepath.Join("/proc", strconv.Itoa(pid), name)
}

// stat holds fields of /proc/<pid>/stat (proc_pid_stat(5)).
type stat struct {
	parent       int
	user, system time.Duration
}

var errStat = errors.New("not in the form of proc_pid_stat(5)")

// parseStat starts after the program's name, which may contain any character.
func parseStat(b []byte) (stat, error) {
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) < 13 {
		return stat{}, errStat
	}
	parent, err1 := strconv.Atoi(string(f[1]))
	user, err2 := strconv.ParseInt(string(f[11]), 10, 64)
	system, err3 := strconv.ParseInt(string(f[12]), 10, 64)
	if errors.Join(err1, err2, err3) != nil {
		return stat{}, errStat
	}
	return stat{parent, time.Duration(user) * tick, time.Duration(system) * tick}, nil
}

// Memory is the memory of processes, in bytes.
type Memory struct {
	RSS int64 // resident; shared pages count in each process
	PSS int64 // resident; shared pages are divided among the processes
}

// MemoryOf returns the exact memory of processes. The kernel stops them for about a
// millisecond to count pages.
func MemoryOf(pids []int) (sum Memory, err error) {
	for _, pid := range pids {
		b, err := os.ReadFile(procFile(pid, "smaps_rollup"))
		if err != nil {
			return Memory{}, err
		}
		m, err := parseRollup(b)
		if err != nil {
			return Memory{}, fmt.Errorf("%s: %w", procFile(pid, "smaps_rollup"), err)
		}
		sum.RSS += m.RSS
		sum.PSS += m.PSS
	}
	return sum, nil
}

// RSSOf returns the resident memory of processes in bytes, accurate to some hundred
// KiB, without stopping them.
func RSSOf(pids []int) (sum int64, err error) {
	for _, pid := range pids {
		b, err := os.ReadFile(procFile(pid, "statm"))
		if err != nil {
			return 0, err
		}
		n, err := parseStatm(b)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", procFile(pid, "statm"), err)
		}
		sum += n * int64(os.Getpagesize())
	}
	return sum, nil
}

// parseStatm returns the second number of /proc/<pid>/statm: resident pages.
func parseStatm(b []byte) (pages int64, err error) {
	f := bytes.Fields(b)
	if len(f) < 2 {
		return 0, errStat
	}
	return strconv.ParseInt(string(f[1]), 10, 64)
}

// parseRollup parses /proc/<pid>/smaps_rollup: lines such as "Rss:  1234 kB".
func parseRollup(b []byte) (Memory, error) {
	var m Memory
	for line := range bytes.Lines(b) {
		f := bytes.Fields(line)
		if len(f) != 3 || string(f[2]) != "kB" {
			continue
		}
		n, err := strconv.ParseInt(string(f[1]), 10, 64)
		if err != nil {
			return Memory{}, fmt.Errorf("%q: %w", line, err)
		}
		switch string(f[0]) {
		case "Rss:":
			m.RSS = n << 10
		case "Pss:":
			m.PSS = n << 10
		}
	}
	if m.RSS == 0 {
		return Memory{}, errors.New("no Rss")
	}
	return m, nil
}

// FilesOf returns the number of open descriptors of processes; 0 if unknown.
func FilesOf(pids []int) (n int) {
	for _, pid := range pids {
		info, err := os.Stat(procFile(pid, "fd"))
		if err != nil {
			continue
		}
		if info.Size() > 0 { // since Linux 6.2
			n += int(info.Size())
		} else if list, err := os.ReadDir(procFile(pid, "fd")); err == nil {
			n += len(list)
		}
	}
	return n
}

// ProcessTree returns a process and all its descendants.
func ProcessTree(pid int) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile(procFile(child, "stat"))
		if err != nil {
			continue // it has exited
		}
		if s, err := parseStat(b); err == nil {
			children[s.parent] = append(children[s.parent], child)
		}
	}
	family := []int{pid}
	for i := 0; i < len(family); i++ {
		family = append(family, children[family[i]]...)
	}
	return family, nil
}

// machineCPU returns the CPU time of all processes so far; 0 if unknown. It excludes
// interrupts, which belong to no process, and time stolen by the hypervisor.
func machineCPU() time.Duration {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	d, _ := parseMachine(b)
	return d
}

// parseMachine adds user, nice and system time of the first line of /proc/stat.
func parseMachine(b []byte) (time.Duration, error) {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	f := bytes.Fields(line)
	if len(f) < 4 || string(f[0]) != "cpu" {
		return 0, errStat
	}
	var sum int64
	for _, text := range f[1:4] {
		n, err := strconv.ParseInt(string(text), 10, 64)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return time.Duration(sum) * tick, nil
}

// ownCPU returns the CPU time of this process.
func ownCPU() CPU {
	c, err := CPUOf([]int{os.Getpid()})
	if err != nil {
		return CPU{}
	}
	return c
}
