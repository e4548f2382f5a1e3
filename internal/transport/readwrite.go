//go:build unix

package transport

// rawRead makes one read from a descriptor that does not block. 0 means the end of the
// stream. It fails with EAGAIN if nothing has arrived.
func rawRead(fd int, p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	return read(fd, p)
}

// rawWrite makes one write to a descriptor that does not block, perhaps of a part. It
// fails with EAGAIN if nothing can be written now.
func rawWrite(fd int, p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	return write(fd, p)
}
