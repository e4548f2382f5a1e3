-- Deletes all sessions of a user, then announces those that were there.
--
-- KEYS[1]  user:{id}:sessions
-- ARGV[1]  user id
-- ARGV[2]  channel of revocations
-- ARGV[3]  most handles in one message
--
-- Returns how many sessions there were. Uses no command that Redis refuses when
-- it is out of memory.

local gone = {}
for _, handle in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  if redis.call('DEL', 'session:' .. handle) == 1 then
    gone[#gone + 1] = handle
  end
end
redis.call('DEL', KEYS[1])
announce(ARGV[2], ARGV[1], gone, tonumber(ARGV[3]))
return #gone
