//go:build unix && (!linux || race)

package transport

import "syscall"

// These are the ordinary calls. On systems other than Linux raw calls were not
// measured. The race detector treats I/O on a descriptor as synchronisation, and sees it
// only through package syscall.

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
