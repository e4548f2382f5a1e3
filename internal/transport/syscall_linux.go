package transport

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// poll fills events with what an epoll descriptor has now and returns their number. It
// does not wait.
func poll(epfd int, events []unix.EpollEvent) (int, error) {
	return call(unix.SYS_EPOLL_PWAIT, epfd, unsafe.Pointer(&events[0]), len(events), 0)
}

func call(number uintptr, fd int, p unsafe.Pointer, n int, flags uintptr) (int, error) {
	for {
		r, _, errno := unix.RawSyscall6(number, uintptr(fd), uintptr(p), uintptr(n), flags, 0, 0)
		switch errno {
		case 0:
			return int(r), nil
		case unix.EAGAIN:
			return 0, unix.EAGAIN // a constant: boxing errno would allocate
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}
