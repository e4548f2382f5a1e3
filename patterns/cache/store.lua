-- Stores what was loaded under a lease, ends the lease and tells those who wait.
-- Who has lost the lease, by whatever pause, stores nothing: another may have
-- loaded something newer since, or the key may have been deleted.
--
-- KEYS[1]  cache:<namespace>:<key>
-- KEYS[2]  lock:cache:<namespace>:<key>
-- ARGV[1]  the lease's token
-- ARGV[2]  when the load began, as acquire.lua said
-- ARGV[3]  for how long from then it is fresh, ms
-- ARGV[4]  for how long from then it may be served, ms
-- ARGV[5]  content
-- ARGV[6]  channel of the namespace
-- ARGV[7]  key, as the channel's payload
--
-- Returns 1, or 0 if it came too late and was not stored.

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
