-- Ends a lease whose load failed, if it is still its owner's, and tells those who
-- wait that they may try.
--
-- KEYS[1]  lock:cache:<namespace>:<key>
-- ARGV[1]  the lease's token
-- ARGV[2]  for how many ms more nobody may load; 0: not at all
-- ARGV[3]  channel of the namespace
-- ARGV[4]  key, as the channel's payload
--
-- Returns 1, or 0 if the lease was lost before.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
if ARGV[2] ~= '0' then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
else
  redis.call('DEL', KEYS[1])
  redis.call('PUBLISH', ARGV[3], ARGV[4])
end
return 1
