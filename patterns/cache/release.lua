-- Ends a lease whose load failed, if this process still has it, and wakes the waiters.
--
-- KEYS[1]  lock:cache:<namespace>:<key>
-- ARGV[1]  the lease's token
-- ARGV[2]  pause before the next lease, ms; 0: none
-- ARGV[3]  channel of the namespace
-- ARGV[4]  key, the payload of the channel
--
-- Returns 1, or 0 if the lease had ended before.

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
