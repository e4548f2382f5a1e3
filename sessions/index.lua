-- Functions for the index user:{id}:sessions; takes no KEYS or ARGV.
--
-- The name of the index key is built from the user id in the session, so it can't be
-- declared in KEYS. These scripts need one primary and don't run on Redis Cluster.

local function index_key(user)
  return 'user:{' .. user .. '}:sessions'
end

-- Call it after every change of the index. It prunes expired handles, at most 500 per
-- call so as not to block Redis, and makes the index key expire with its last session.
-- It also deletes the sessions of pruned handles. Redis may still have their keys, and
-- after a clock step backwards such a session would be live but invisible to
-- revoke-all.
local function prune_and_expire(index, now)
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
