//go:build race

package gatewaytest

// raceEnabled: the test was built with -race, so the gateway is too.
const raceEnabled = true
