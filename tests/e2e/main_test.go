// Package e2e meets real gateway processes from outside: real sockets, real
// redis-server, other people's WebSocket clients, a browser. It is written
// against the wire contract (docs/protocol.md) and imports no room of the gateway.
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
