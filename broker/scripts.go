package broker

import (
	_ "embed"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"

	"herald/notify"
)

//go:embed store.lua
var storeLua string

//go:embed publish.lua
var publishLua string

//go:embed publishbatch.lua
var batchLua string

//go:embed publishtickets.lua
var ticketsLua string

// luaScript is one of the publish scripts. Fields are pointed to by commands.
type luaScript struct{ source, hash string }

// newScript puts the parts that a script depends on in front of it.
func newScript(parts ...string) luaScript {
	source := constants + strings.Join(parts, "\n")
	return luaScript{source, redis.NewScript(source).Hash()}
}

// Kinds of notifications in ARGV[3] of the publish scripts.
const (
	kindStore     = "store"
	kindQuiet     = "quiet"
	kindEphemeral = "ephemeral"
	kindSkip      = "skip"
)

// Verdicts of a publish script.
const (
	verdictStored   = "stored"
	verdictReplay   = "replay"
	verdictMismatch = "mismatch"
	verdictLate     = "late"
)

// Outcomes of a notification, where there is no id.
const (
	outcomeSkipped = "skipped"
	outcomeLeftOut = "leftout"
	outcomeDenied  = "denied"
	outcomeFailed  = "failed"
	unasked        = "unasked" // instead of admit's clock
)

// constants defines in Lua what the scripts share with Go. No value needs escaping.
var constants = func() string {
	var b strings.Builder
	for _, c := range [...][2]string{
		{"STORE", kindStore}, {"QUIET", kindQuiet}, {"EPHEMERAL", kindEphemeral}, {"SKIP", kindSkip},
		{"STORED", verdictStored}, {"REPLAY", verdictReplay}, {"MISMATCH", verdictMismatch}, {"LATE", verdictLate},
		{"SKIPPED", outcomeSkipped}, {"LEFT_OUT", outcomeLeftOut}, {"DENIED", outcomeDenied}, {"FAILED", outcomeFailed},
		{"UNASKED", unasked},
		{"STORED_HEAD", notify.StoredHead}, {"STORED_PREV", notify.StoredPrev}, {"STORED_TS", notify.StoredTS},
		{"EPHEMERAL_HEAD", notify.EphemeralHead},
		{"CHANNEL_PREFIX", channelPrefix}, {"CHANNEL_SUFFIX", channelSuffix},
	} {
		fmt.Fprintf(&b, "local %s = '%s'\n", c[0], c[1])
	}
	fmt.Fprintf(&b, "local STATE_AFTER_LOG = %d\n", stateAfterLog)
	return b.String()
}()
