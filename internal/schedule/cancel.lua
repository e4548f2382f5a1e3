-- Removes an entry, so that it is not delivered. Uses only commands that Redis
-- accepts when it is out of memory.
--
-- KEYS  1 its user's hash   2 its shard's due zset
-- ARGV  1 id
-- Returns 1; 0 if it was gone.
redis.call('ZREM', KEYS[2], ARGV[1])
return redis.call('HDEL', KEYS[1], ARGV[1])
