-- Removes the logs of users who got no notification for longer than the retention. Redis
-- expires keys; this is for keys with a wrong expiry: the retention was shortened, or the
-- expiry was lost.
--
-- KEYS  three for each user: log, state and expiring (see keys.go)
-- ARGV  1 retention of a log, ms  2 life of a state after its log, ms
-- Returns {logs removed, lists of expiring ids removed, keys that were given an expiry}.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local retention, after = tonumber(ARGV[1]), tonumber(ARGV[2])
local int = function(n) return string.format('%.0f', n) end
local logs, lists, bounded = 0, 0, 0

local function bound(key, life)
  if redis.call('PTTL', key) == -1 then
    bounded = bounded + redis.call('PEXPIRE', key, int(life))
  end
end

for k = 1, #KEYS, 3 do
  local log, state, expiring = KEYS[k], KEYS[k + 1], KEYS[k + 2]
  local newest = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
  if newest then
    local stored = tonumber(string.match(newest[1], '^%d+'))
    if stored < now - retention then
      logs = logs + redis.call('UNLINK', log)
      newest = nil
    else
      bound(log, retention)
      bound(expiring, retention)
    end
  end
  if not newest then
    lists = lists + redis.call('DEL', expiring)
  end
  -- Never removed here: without the log, only the state holds the last used id.
  bound(state, retention + after)
end
return {logs, lists, bounded}
