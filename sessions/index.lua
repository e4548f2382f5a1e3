-- Upkeep of the index user:{id}:sessions, for every script that touches it;
-- takes no KEYS and no ARGV of its own.
--
-- The index key's name comes from the user id stored in the session, so it
-- cannot be declared in KEYS: these scripts need one primary, not Redis Cluster.

local function index_key(user)
  return 'user:{' .. user .. '}:sessions'
end

-- Call it after every change of the index. It prunes dead handles, at most 500
-- at a time so that no call blocks Redis for long, and lets the index key live
-- exactly as long as its longest-lived session. A pruned handle's session is
-- deleted with it: Redis may still hold it, and a clock that steps back would
-- bring to life a session that no revoke-all can find.
local function settle(index, now)
  local dead = redis.call('ZRANGEBYSCORE', index, '-inf', ms(now), 'LIMIT', 0, 500)
  for _, handle in ipairs(dead) do
    redis.call('DEL', 'session:' .. handle)
    redis.call('ZREM', index, handle)
  end
  local last = redis.call('ZRANGE', index, -1, -1, 'WITHSCORES')
  if last[2] then
    redis.call('PEXPIREAT', index, ms(tonumber(last[2])))
  end
end
