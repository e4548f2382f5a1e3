-- Releases a node's claim on a shard.
--
-- KEYS  1 the shard's lease
-- ARGV  1 node
-- Returns 1; 0 if it had no claim.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
return redis.call('DEL', KEYS[1])
