-- Claims a request for an attempt, or reports why it can't.
--
-- KEYS  1 the request's record (keys.go)
-- ARGV  1 fingerprint   2 lease, ms   3 lifetime of the record, ms
-- Returns {'claimed', token}, {'done', result}, {'running', ms until the lease
-- ends} or {'mismatch'}.
--
-- A token is larger than all earlier ones of the key. It is Redis's time in µs, so it
-- increases even after the record has expired; after a clock step backwards it is the
-- previous token plus one.
local call = redis.call
local t = call('TIME')
local micros = t[1] * 1000000 + t[2]
local now = math.floor(micros / 1000)
local int = function(n) return string.format('%d', n) end

local r = call('HMGET', KEYS[1], 'print', 'result', 'until', 'token')
if r[1] and r[1] ~= ARGV[1] then
  return {'mismatch'}
end
if r[2] then
  return {'done', r[2]}
end
if r[3] and tonumber(r[3]) > now then
  return {'running', int(r[3] - now)}
end
local token = int(math.max(micros, (r[4] or 0) + 1))
call('HSET', KEYS[1], 'print', ARGV[1], 'token', token, 'until', int(now + ARGV[2]))
call('PEXPIRE', KEYS[1], ARGV[3])
return {'claimed', token}
