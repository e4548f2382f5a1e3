-- Marks a live session as used and slides its expiry and its index entry.
--
-- KEYS[1]  session:<handle>
-- ARGV[1]  handle
-- ARGV[2]  sliding lifetime, ms
--
-- Returns {expiry in ms, {field, value, ...}}, or nil if there is no such live
-- session; a deleted session is never written to.
--
-- The index is written first, as in create.lua, because a live session missing from its
-- index would survive a revoke-all.

local now = clock()
local session = live(KEYS[1], now)
if not session then
  return false
end
local expires = math.min(now + tonumber(ARGV[2]), session.absolute)
local index = index_key(session.user)

redis.call('ZADD', index, ms(expires), ARGV[1])
prune_and_expire(index, now)
redis.call('HSET', KEYS[1], 'lastUsedAt', ms(now))
redis.call('PEXPIREAT', KEYS[1], ms(expires))
return answer(KEYS[1], expires)
