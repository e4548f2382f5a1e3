package schedule

import (
	"hash/fnv"
	"strconv"

	"herald/internal/redisx"
)

// The Redis keys of this package. claim.lua builds userKey too.

// userKey: hash; id → packed entry, of all notifications scheduled for the user. Only
// entries in it are delivered; publishing and cancelling both remove them. Exists while
// it has entries. {…} is a hash tag: one user's keys share a slot.
func userKey(userID string) string { return redisx.UserKey(userID, "scheduled") }

// dueKey: zset; id → due time, Unix ms, of all entries of the shard's users. An id
// without an entry is ignored, and removed when its time comes. Exists while it has ids.
func dueKey(shard int) string { return "schedule:{" + strconv.Itoa(shard) + "}:due" }

// leaseKey: string; the name of the node that delivers the shard. Lives for
// Options.Lease.
func leaseKey(shard int) string { return "schedule:{" + strconv.Itoa(shard) + "}:lease" }

// shards is the number of parts of the schedule, and so of nodes that can deliver at the
// same time. It is not an option because all nodes must agree on it.
const shards = 16

// shardOf puts a user's entries into one shard, which keeps them in order.
func shardOf(userID string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(userID)) // never fails
	return int(h.Sum32() % shards)
}
