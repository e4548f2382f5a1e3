-- Stores a new session and indexes it.
--
-- KEYS[1]  session:<handle>
-- KEYS[2]  user:{id}:sessions
-- ARGV[1]  handle
-- ARGV[2]  user id
-- ARGV[3]  sliding lifetime, ms
-- ARGV[4]  absolute lifetime, ms
-- ARGV[5]  data members in the format of members.lua; removals are ignored
--
-- Returns {expiry in ms, {field, value, ...}}.
--
-- The index is written first: if Redis refuses the first write (out of memory),
-- nothing is stored. A handle without its session is harmless.

local now = clock()
local absolute = now + tonumber(ARGV[4])
local expires = math.min(now + tonumber(ARGV[3]), absolute)

redis.call('ZADD', KEYS[2], ms(expires), ARGV[1])
prune_and_expire(KEYS[2], now)

local fields = {
  'userId', ARGV[2], 'createdAt', ms(now), 'lastUsedAt', ms(now), 'absoluteExpiresAt', ms(absolute),
}
for name, value in members(ARGV[5]) do
  if value ~= '' then
    fields[#fields + 1] = 'data:' .. name
    fields[#fields + 1] = value
  end
end
redis.call('HSET', KEYS[1], unpack(fields))
redis.call('PEXPIREAT', KEYS[1], ms(expires))
return answer(KEYS[1], expires)
