package redisinfo

import (
	"regexp"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
)

// slowLog converts Redis's slow log without user ids and payloads.
func slowLog(entries []redis.SlowLog) *SlowLog {
	l := &SlowLog{newest: -1}
	for _, e := range entries {
		l.newest = max(l.newest, e.ID)
		if e.Duration < SlowCommand || len(e.Args) == 0 {
			continue
		}
		command, key := describe(e.Args)
		l.Entries = append(l.Entries, SlowEntry{ID: e.ID, At: e.Time, Took: e.Duration, Command: command, Key: key, Client: e.ClientAddr})
	}
	return l
}

// describe returns the command's name and a pattern of its first key.
func describe(args []string) (command, key string) {
	command = word(args[0])
	switch {
	case slices.Contains(containers, command) && len(args) > 1:
		return command + " " + word(args[1]), ""
	case slices.Contains(scripts, command) && len(args) > 3 && args[2] != "0":
		return command, keyPattern(args[3])
	case slices.Contains(keyFirst, command) && len(args) > 1:
		return command, keyPattern(args[1])
	}
	return command, ""
}

// word returns a command's name if it looks like one; a client may have sent a secret in
// its place.
func word(arg string) string {
	if !commandName.MatchString(arg) {
		return "?"
	}
	return strings.ToUpper(arg)
}

var commandName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]{0,31}$`)

// containers are the commands with subcommands, whose second word belongs to the name.
var containers = strings.Fields(`ACL CLIENT CLUSTER COMMAND CONFIG FUNCTION LATENCY MEMORY MODULE OBJECT PUBSUB SCRIPT SLOWLOG XGROUP XINFO`)

var scripts = strings.Fields(`EVAL EVALSHA EVAL_RO EVALSHA_RO FCALL FCALL_RO`)

// keyFirst are the commands whose first argument is a key. Of other commands only the name
// is kept.
var keyFirst = strings.Fields(`
	APPEND BITCOUNT COPY DECR DECRBY DEL DUMP EXISTS EXPIRE EXPIREAT EXPIRETIME GET GETDEL GETEX GETRANGE GETSET
	HDEL HEXISTS HGET HGETALL HINCRBY HKEYS HLEN HMGET HMSET HRANDFIELD HSCAN HSET HSETNX HSTRLEN HVALS INCR INCRBY INCRBYFLOAT
	LINDEX LINSERT LLEN LMOVE LPOP LPOS LPUSH LPUSHX LRANGE LREM LSET LTRIM MGET MSET MSETNX PERSIST PEXPIRE PEXPIREAT PEXPIRETIME PSETEX PTTL
	RENAME RENAMENX RESTORE RPOP RPOPLPUSH RPUSH RPUSHX SADD SCARD SDIFF SET SETEX SETNX SETRANGE SINTER SISMEMBER SMEMBERS SMISMEMBER
	SMOVE SORT SORT_RO SPOP SRANDMEMBER SREM SSCAN STRLEN SUNION TOUCH TTL TYPE UNLINK XACK XADD XCLAIM XDEL XLEN XPENDING XRANGE XREVRANGE XTRIM
	ZADD ZCARD ZCOUNT ZINCRBY ZLEXCOUNT ZPOPMAX ZPOPMIN ZRANGE ZRANGEBYLEX ZRANGEBYSCORE ZRANK ZREM ZREMRANGEBYLEX ZREMRANGEBYRANK
	ZREMRANGEBYSCORE ZREVRANGE ZREVRANGEBYSCORE ZREVRANK ZSCAN ZSCORE`)

var namespaced = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9_-]{0,31}):(?:.*\}(:[a-z][a-z-]{0,15})$)?`)

// keyPattern keeps a key's namespace and what follows its hash tag: `user:{…}:log` for
// `user:{42}:log`, `session:…` for `session:5f…`, and nothing of a key without a
// namespace.
func keyPattern(key string) string {
	m := namespaced.FindStringSubmatch(key)
	switch {
	case m == nil:
		return "…"
	case m[2] != "":
		return m[1] + ":{…}" + m[2]
	}
	return m[1] + ":…"
}
