-- Returns the live sessions of a user and prunes the others from the index.
--
-- KEYS[1]  user:{id}:sessions
-- ARGV[1]  bytes of fields after which sessions are returned without data. It limits
--          the reply for a user with thousands of sessions
--
-- Returns {{handle, whole, expiry in ms, {field, value, ...}}, ...}, latest
-- expiry first; whole is 1, or 0 without data fields.

local now = clock()
local left = tonumber(ARGV[1])

local function fields(key, core)
  if left <= 0 then
    return 0, {CORE[1], core[1], CORE[2], core[2], CORE[3], core[3], CORE[4], core[4]}
  end
  local all = redis.call('HGETALL', key)
  for _, text in ipairs(all) do
    left = left - #text
  end
  return 1, all
end

local sessions = {}
for _, handle in ipairs(redis.call('ZREVRANGE', KEYS[1], 0, -1)) do
  local key = 'session:' .. handle
  local session = live(key, now)
  if session then
    local whole, all = fields(key, session.core)
    sessions[#sessions + 1] = {handle, whole, session.expires, all}
  else
    redis.call('DEL', key)
    redis.call('ZREM', KEYS[1], handle)
  end
end
prune_and_expire(KEYS[1], now)
return sessions
