-- Stores a loaded value under its lease, ends the lease and wakes the waiters. A loader
-- that has lost its lease stores nothing: a newer value may have been loaded since, or
-- the key deleted.
--
-- KEYS[1]  cache:<namespace>:<key>
-- KEYS[2]  lock:cache:<namespace>:<key>
-- ARGV[1]  the lease's token
-- ARGV[2]  start of the load, as returned by acquire.lua
-- ARGV[3]  how long from then the value is fresh, ms
-- ARGV[4]  how long from then it may be served, ms
-- ARGV[5]  content
-- ARGV[6]  channel of the namespace
-- ARGV[7]  key, the payload of the channel
--
-- Returns 1 if stored, 0 if it came too late.

if redis.call('GET', KEYS[2]) ~= ARGV[1] then
  return 0
end
local left = math.min(ARGV[4] - (clock() - ARGV[2]), tonumber(ARGV[4]))
if left > 0 then
  local head = ARGV[2] .. ',' .. ARGV[3] .. ',' .. ARGV[4] .. ';'
  redis.call('SET', KEYS[1], head .. ARGV[5], 'PX', ms(left))
end
redis.call('DEL', KEYS[2])
redis.call('PUBLISH', ARGV[6], ARGV[7])
return left > 0 and 1 or 0
