//go:build !linux

// Command loadtest measures a gateway from outside. It needs Linux: epoll, and
// /proc to see what a server costs.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "loadtest: needs Linux")
	os.Exit(1)
}
