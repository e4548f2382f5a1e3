//go:build unix

package main

import "syscall"

// spareFiles are the descriptors kept for Redis, listeners, logs and requests.
const spareFiles = 256

// maxSockets is the configured number of connections, or what the limit of open
// files allows (the Go runtime has raised the soft limit to the hard one).
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

// openFiles is the limit of open files; ok is false if there is none to speak of.
func openFiles() (limit int, ok bool) {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil || r.Cur > 1<<30 {
		return 0, false
	}
	return int(r.Cur), true
}
