-- Reads an entry again, or else takes the lease on loading it, in one step: who
-- is told that there is nothing knows whether it is they who load.
--
-- KEYS[1]  cache:<namespace>:<key>
-- KEYS[2]  lock:cache:<namespace>:<key>
-- ARGV[1]  a token that nobody else has
-- ARGV[2]  length of the lease, ms
-- ARGV[3]  which entry will do: 'any', 'fresh', or one younger than so many ms
--
-- Returns {'fresh' or 'stale', content}, {'lease', time in ms: when the load
-- begins}, or {'held', ms until the lease of another ends}.

local now = clock()
local e = entry(KEYS[1], now)
if e and (ARGV[3] == 'any' or ARGV[3] == e.state or e.age < (tonumber(ARGV[3]) or 0)) then
  return {e.state, e.content}
end
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then
  return {'lease', ms(now)}
end
return {'held', ms(redis.call('PTTL', KEYS[2]))}
