-- The baseline's sliding-window rate limiter: prune, count, add, expire, by the
-- caller's clock.
--
-- KEYS[1]  zset  ratelimit:<identifier>
-- ARGV     1 now, ms · 2 the window, ms · 3 requests per window · 4 a unique member
-- Returns {1 allowed or 0, remaining, the end of the window in ms}.
redis.call('ZREMRANGEBYSCORE', KEYS[1], 0, ARGV[1] - ARGV[2])
local count = redis.call('ZCARD', KEYS[1])
local allowed = count < tonumber(ARGV[3])
if allowed then
  redis.call('ZADD', KEYS[1], ARGV[1], ARGV[4])
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  count = count + 1
end
return { allowed and 1 or 0, ARGV[3] - count, ARGV[1] + ARGV[2] }
