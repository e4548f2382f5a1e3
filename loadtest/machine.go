//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"herald/loadtest/measure"
	"herald/loadtest/report"
	"herald/loadtest/scenario"
)

// machine describes what the results depend on.
func machine(ctx context.Context) []report.Fact {
	facts := []report.Fact{
		{Name: "CPU", Value: fmt.Sprintf("%d × %s", runtime.NumCPU(), processor())},
		{Name: "Memory", Value: memory()},
		{Name: "Kernel", Value: kernel()},
		{Name: "Open files", Value: fmt.Sprint(scenario.OpenFiles())},
		{Name: "Go", Value: strings.TrimPrefix(runtime.Version(), "go")},
	}
	for _, program := range [][]string{{"redis-server", "--version"}, {"node", "--version"}, {"nginx", "-v"}} {
		if v := version(ctx, program); v != "" {
			facts = append(facts, report.Fact{Name: program[0], Value: v})
		}
	}
	return facts
}

func processor() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range bytes.Lines(b) {
		if name, value, ok := bytes.Cut(line, []byte(":")); ok && string(bytes.TrimSpace(name)) == "model name" {
			return string(bytes.TrimSpace(value))
		}
	}
	return runtime.GOARCH
}

func memory() string {
	var i unix.Sysinfo_t
	if unix.Sysinfo(&i) != nil {
		return "unknown"
	}
	return measure.Bytes.Format(float64(i.Totalram) * float64(i.Unit))
}

func kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
}

// version returns the first word with a digit in the program's version output.
func version(ctx context.Context, program []string) string {
	out, err := exec.CommandContext(ctx, program[0], program[1:]...).CombinedOutput()
	if err != nil {
		return ""
	}
	for _, word := range strings.Fields(string(out)) {
		if strings.ContainsAny(word, "0123456789") {
			return strings.TrimPrefix(strings.TrimPrefix(strings.TrimPrefix(word, "nginx/"), "v="), "v")
		}
	}
	return ""
}
