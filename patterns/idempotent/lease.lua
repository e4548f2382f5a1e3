-- Extends an attempt's lease, or releases its claim.
--
-- KEYS  1 the request's record (keys.go)
-- ARGV  1 the attempt's token   2 lease from now, ms; 0 releases the claim
--       3 lifetime of the record, ms
-- Returns 1; 0 if another attempt has the claim, or the record is gone.
local call = redis.call
if call('HGET', KEYS[1], 'token') ~= ARGV[1] then
  return 0
end
local lease = tonumber(ARGV[2])
if lease > 0 then
  local t = call('TIME')
  local now = t[1] * 1000 + math.floor(t[2] / 1000)
  call('HSET', KEYS[1], 'until', string.format('%d', now + lease))
else
  call('HDEL', KEYS[1], 'until')
end
call('PEXPIRE', KEYS[1], ARGV[3])
return 1
