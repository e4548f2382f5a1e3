-- Returns an acceptable entry, or takes the lease on loading it, in one step: exactly
-- one of the processes that find no entry becomes the one that loads.
--
-- KEYS[1]  cache:<namespace>:<key>
-- KEYS[2]  lock:cache:<namespace>:<key>
-- ARGV[1]  a unique token
-- ARGV[2]  length of the lease, ms
-- ARGV[3]  acceptable entries: 'any', 'fresh', or an upper limit of the age, ms
--
-- Returns {'fresh' or 'stale', content}; {'lease', time at which the load starts,
-- Unix ms}; or {'loading', ms until another process's lease ends}.

local now = clock()
local e = entry(KEYS[1], now)
if e and (ARGV[3] == 'any' or ARGV[3] == e.state or e.age < (tonumber(ARGV[3]) or 0)) then
  return {e.state, e.content}
end
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then
  return {'lease', ms(now)}
end
return {'loading', ms(redis.call('PTTL', KEYS[2]))}
