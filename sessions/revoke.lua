-- Deletes a session, removes it from its user's index and publishes that.
--
-- KEYS[1]  session:<handle>
-- ARGV[1]  handle
-- ARGV[2]  channel of revocations
--
-- Returns 1, or nil if there is no such session. Uses only commands that Redis accepts
-- when it is out of memory, so that logging out still works.

local user = redis.call('HGET', KEYS[1], 'userId')
if not valid_user(user) then
  return false
end
local index = index_key(user)

redis.call('DEL', KEYS[1])
redis.call('ZREM', index, ARGV[1])
prune_and_expire(index, clock())
announce(ARGV[2], user, {ARGV[1]}, 1)
return 1
