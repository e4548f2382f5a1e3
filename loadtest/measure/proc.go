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

// CPU is the processor time of processes.
type CPU struct {
	Total        time.Duration // to the nanosecond
	User, System time.Duration // to a clock tick each
}

func (c CPU) plus(o CPU) CPU  { return CPU{c.Total + o.Total, c.User + o.User, c.System + o.System} }
func (c CPU) minus(o CPU) CPU { return CPU{c.Total - o.Total, c.User - o.User, c.System - o.System} }

// tick is the unit of /proc/<pid>/stat: USER_HZ, which is 100 on every
// architecture that Go runs on.
const tick = time.Second / 100

// CPUOf is what the processes have used so far, their dead threads included.
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

// processClock is the clock of another process's processor time (clock_getcpuclockid(3)).
func processClock(pid int) int32 { return ^int32(pid)<<3 | 2 }

func procFile(pid int, name string) string {
	return filepath.Join("/proc", strconv.Itoa(pid), name)
}

// stat is what is read of /proc/<pid>/stat (proc_pid_stat(5)).
type stat struct {
	parent       int
	user, system time.Duration
}

var errStat = errors.New("not in the form of proc_pid_stat(5)")

// parseStat begins behind the program's name, which may hold anything.
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

// Memory is what processes occupy, in bytes.
type Memory struct {
	RSS int64 // resident; pages that processes share count in each
	PSS int64 // resident; pages that processes share are divided among them
}

// MemoryOf makes the kernel count pages, which stops the processes for a
// millisecond or so.
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

// RSSOf is the resident memory of processes in bytes, at no cost to them. The
// kernel keeps this count to within some hundred KiB.
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

// parseStatm reads the second number of /proc/<pid>/statm: resident pages.
func parseStatm(b []byte) (pages int64, err error) {
	f := bytes.Fields(b)
	if len(f) < 2 {
		return 0, errStat
	}
	return strconv.ParseInt(string(f[1]), 10, 64)
}

// parseRollup reads /proc/<pid>/smaps_rollup: lines such as "Rss:  1234 kB".
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

// FilesOf is how many descriptors the processes have open; 0 if they cannot be
// counted.
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

// Family is a process and all its descendants.
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
			continue // ended meanwhile
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

// machineCPU is what all processes of the machine have used so far; 0 if that
// is not known. Interrupts are left out: they are the network's, and no
// process's. So is what the hypervisor gave to others.
func machineCPU() time.Duration {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	d, _ := parseMachine(b)
	return d
}

// parseMachine reads user, nice and system time of the first line of /proc/stat.
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

// ownCPU is this process's.
func ownCPU() CPU {
	c, err := CPUOf([]int{os.Getpid()})
	if err != nil {
		return CPU{}
	}
	return c
}
