// Package e2e tests real gateway processes from outside: real sockets, real redis-server
// processes, other WebSocket libraries, a browser. It is written against docs/protocol.md
// and imports no package of the gateway.
package e2e

import (
	"flag"
	"testing"

	"herald/internal/testing/gatewaytest"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// Parallel tests here wait for another process most of the time, so there may
	// be more of them than processors.
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	gatewaytest.Main(m)
}
