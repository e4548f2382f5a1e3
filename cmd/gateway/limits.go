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
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil || r.Cur > 1<<30 {
		return 0
	}
	return max(int(r.Cur)-spareFiles, 64)
}
