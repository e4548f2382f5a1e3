// Package deploy tests what surrounds the gateway in production: nginx.conf with
// a real nginx, docker-compose.yml and the Dockerfile against the real program.
package deploy

import (
	"testing"

	"herald/internal/testing/gatewaytest"
)

func TestMain(m *testing.M) { gatewaytest.Main(m) }
