// Package chaos shows that nothing acknowledged is lost. It runs a cluster of real
// processes behind fault-injecting proxies, and publishes and listens while Redis is
// killed, stopped or cut off and nodes die. All actors record what they see. A checker,
// which depends only on the promises of docs/protocol.md, looks for a broken one.
//
//	go test ./tests/chaos                      short, every fault once
//	go test ./tests/chaos -chaos.long -v       minutes; the table at the end
//	CHAOS_SEED=7 go test ./tests/chaos         the same choices again
//	go test ./tests/chaos -run TestRecorded -chaos.history FILE
//
// The seed decides users, messages, faults and pauses, but not how processes interleave.
// A failed scenario therefore keeps its history in a file, which TestRecordedHistory
// checks again.
package chaos

import (
	"flag"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"herald/internal/testing/gatewaytest"
)

var (
	long        = flag.Bool("chaos.long", false, "take minutes: more of everything, and outages as long as they really are")
	seedFlag    = flag.Uint64("chaos.seed", 0, "seed of every choice (default: CHAOS_SEED, or a new one)")
	keepFlag    = flag.Bool("chaos.keep", false, "keep every history, not only those of failures")
	historyFlag = flag.String("chaos.history", "", "history of an earlier run, for TestRecordedHistory")
)

// seed is the seed of the run. Every failure prints it.
var seed uint64

func TestMain(m *testing.M) {
	flag.Parse()
	if seed = *seedFlag; seed == 0 {
		seed, _ = strconv.ParseUint(os.Getenv("CHAOS_SEED"), 10, 64)
	}
	for seed == 0 {
		seed = rand.Uint64() >> 32 // short enough to type
	}
	gatewaytest.Main(m)
}

// chance returns the random source of one actor. With a source each, actors repeat their
// choices independently of the others.
func chance(scenario, actor uint64) *rand.Rand {
	return rand.New(rand.NewPCG(seed+scenario<<32, actor))
}
