-- Takes an entry away: it will not be delivered.
--
-- KEYS  1 the hash of its user   2 the due zset of its shard
-- ARGV  1 id
-- Returns 1; 0 if it was not there any more. Uses no command that Redis refuses
-- when it is out of memory.
redis.call('ZREM', KEYS[2], ARGV[1])
return redis.call('HDEL', KEYS[1], ARGV[1])
