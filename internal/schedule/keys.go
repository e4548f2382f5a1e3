package schedule

import (
	"hash/fnv"
	"strconv"

	"herald/internal/redisx"
)

// The Redis names of this room. claim.lua spells userKey too.

// userKey: hash; id → entry (pack), of everything that is scheduled for the
// user. What is here is delivered once, and what is not, never: publishing and
// cancelling both take the entry away. Lives as long as it holds something. {…}
// is a hash tag: one user's keys share a slot.
func userKey(userID string) string { return redisx.UserKey(userID, "scheduled") }

// dueKey: zset; id → Unix ms when it is due, of every entry of the shard's
// users. An id whose entry is gone means nothing, and is removed when its time
// comes. Lives as long as it holds something.
func dueKey(shard int) string { return "schedule:{" + strconv.Itoa(shard) + "}:due" }

// leaseKey: string; the node that delivers what is due in the shard. Lives for
// the lease.
func leaseKey(shard int) string { return "schedule:{" + strconv.Itoa(shard) + "}:lease" }

// shards is how many parts the schedule has: as many nodes can deliver at once.
// All nodes must agree, so it is no option.
const shards = 16

// shardOf keeps one user's entries together, and so in order.
func shardOf(userID string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(userID)) // never fails
	return int(h.Sum32() % shards)
}
