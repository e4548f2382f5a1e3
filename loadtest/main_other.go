//go:build !linux

// Command loadtest measures a gateway from outside. It needs Linux: epoll, and
// /proc for CPU and memory of the server.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "loadtest: needs Linux")
	os.Exit(1)
}
