-- Deletes one session, takes it out of its user's index, then announces it.
--
-- KEYS[1]  session:<handle>
-- ARGV[1]  handle
-- ARGV[2]  channel of revocations
--
-- Returns 1, or nil if there was none. Uses no command that Redis refuses when
-- it is out of memory: logging out works then too.

local user = redis.call('HGET', KEYS[1], 'userId')
if not valid_user(user) then
  return false
end
local index = index_key(user)

redis.call('DEL', KEYS[1])
redis.call('ZREM', index, ARGV[1])
settle(index, clock())
announce(ARGV[2], user, {ARGV[1]}, 1)
return 1
