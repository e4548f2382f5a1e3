-- Promises a fencing token: from now on this node promises only higher ones.
--
-- KEYS  1 the resource's token (see tokenKey)
-- ARGV  1 the token  2 how long it is kept, ms
-- Returns 1, or 0 if as high a one was promised before: to somebody else.
if tonumber(redis.call('GET', KEYS[1]) or 0) >= tonumber(ARGV[1]) then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
