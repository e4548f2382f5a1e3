//go:build unix

package transport

// Read is one read from a descriptor that doesn't block; 0 is the end of the
// stream. With nothing to be read it fails with EAGAIN.
func Read(fd int, p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	return read(fd, p)
}

// Write is one write to a descriptor that doesn't block, perhaps of a part. It
// fails with EAGAIN if nothing can be written now.
func Write(fd int, p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	return write(fd, p)
}
