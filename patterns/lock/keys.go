package lock

import (
	"fmt"
	"strings"
	"time"
)

// The Redis names of this room. They are on every one of the lock's nodes.

// lockKey: string; the random value of the one who holds the resource. Lives for
// the lock's ttl, which is extended while the work runs.
func lockKey(resource string) string { return "lock:" + resource }

// tokenKey: string; the highest fencing token that was promised for the resource.
// Lives for tokenLife after the last promise.
func tokenKey(resource string) string { return "fence:" + resource }

// markerKey: string; the token of the run that did the job in the period that
// begins at date. Lives for two periods.
func markerKey(job, date string) string { return "cron:" + job + ":" + date }

// tokenLife is how long a token outlives its last use. After it, Redis's clock
// alone keeps tokens increasing, and would have to go back by as much to fail.
const tokenLife = 30 * 24 * time.Hour

// maxName is the most bytes of a resource's or job's name.
const maxName = 200

// checkName refuses what would change the meaning of a key; colons only where
// they cannot make two names one.
func checkName(what, name, alsoAllowed string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("lock: %s of %d bytes: must be 1 to %d", what, len(name), maxName)
	}
	for _, c := range []byte(name) {
		if !plain(c) && strings.IndexByte(alsoAllowed, c) < 0 {
			return fmt.Errorf("lock: %s %q: only letters, digits and ._@-%s", what, name, alsoAllowed)
		}
	}
	return nil
}

func plain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("._@-", c) >= 0
}
