//go:build unix

package main

import "syscall"

// spareFiles is the number of descriptors reserved for Redis, listeners, logs and requests.
const spareFiles = 256

// maxSockets returns the configured maximum of connections. If that is 0, it derives one
// from the limit of open files, which the Go runtime has raised to the hard limit.
func maxSockets(configured int) int {
	if configured > 0 {
		return configured
	}
	limit, ok := openFiles()
	if !ok {
		return 0
	}
	return max(limit-spareFiles, 64)
}

// openFiles returns the limit of open files. ok is false if there is practically none.
func openFiles() (limit int, ok bool) {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil || r.Cur > 1<<30 {
		return 0, false
	}
	return int(r.Cur), true
}
