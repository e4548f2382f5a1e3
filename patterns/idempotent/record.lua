-- Records an attempt's result, unless a later attempt has the claim.
--
-- KEYS  1 the request's record (keys.go)
-- ARGV  1 the attempt's token   2 result   3 lifetime of the record, ms
-- Returns 'recorded'; 'superseded' if a later attempt has the claim; 'gone' if the
-- record no longer exists.
local token = redis.call('HGET', KEYS[1], 'token')
if not token then
  return 'gone'
end
if token ~= ARGV[1] then
  return 'superseded'
end
redis.call('HSET', KEYS[1], 'result', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 'recorded'
