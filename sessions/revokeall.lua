-- Deletes all sessions of a user and publishes which existed.
--
-- KEYS[1]  user:{id}:sessions
-- ARGV[1]  user id
-- ARGV[2]  channel of revocations
-- ARGV[3]  maximum handles of one message
--
-- Returns the number of deleted sessions. Uses only commands that Redis accepts when it
-- is out of memory.

local gone = {}
for _, handle in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  if redis.call('DEL', 'session:' .. handle) == 1 then
    gone[#gone + 1] = handle
  end
end
redis.call('DEL', KEYS[1])
announce(ARGV[2], ARGV[1], gone, tonumber(ARGV[3]))
return #gone
