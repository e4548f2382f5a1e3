package lock

import (
	"fmt"
	"strings"
	"time"
)

// The Redis keys of this package. They are stored on every node.

// lockKey: string; the random value of the resource's holder. Lives for the lock's
// ttl, which is extended while the holder's function runs.
func lockKey(resource string) string { return "lock:" + resource }

// tokenKey: string; the highest fencing token promised for the resource. Lives for
// tokenLife after the last promise.
func tokenKey(resource string) string { return "fence:" + resource }

// markerKey: string; the token of the run that completed the job in the period that
// begins at date. Lives for two periods.
func markerKey(job, date string) string { return "cron:" + job + ":" + date }

// tokenLife is how long a token outlives its last use. Afterwards only Redis's clock
// keeps tokens increasing; it would have to step back by as much to break that.
const tokenLife = 30 * 24 * time.Hour

// maxName limits the name of a resource or job, in bytes.
const maxName = 200

// checkName refuses characters that would change the meaning of a key. A colon is
// allowed only where it can't make two names the same key.
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
