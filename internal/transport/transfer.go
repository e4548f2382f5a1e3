//go:build unix && (!linux || race)

package transport

import "syscall"

// The ordinary calls: elsewhere than on Linux nothing was measured, and the race
// detector, which takes what goes through a descriptor for synchronisation, learns
// of it from package syscall alone.

func read(fd int, p []byte) (n int, err error) {
	for err = syscall.EINTR; err == syscall.EINTR; {
		n, err = syscall.Read(fd, p)
	}
	return max(n, 0), err
}

func write(fd int, p []byte) (n int, err error) {
	for err = syscall.EINTR; err == syscall.EINTR; {
		n, err = syscall.Write(fd, p)
	}
	return max(n, 0), err
}
