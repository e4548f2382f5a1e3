-- Promises a fencing token: afterwards this node promises only higher ones, as a
-- Paxos acceptor does with ballots.
--
-- KEYS  1 the resource's token (see tokenKey)
-- ARGV  1 the token  2 lifetime of the promise, ms
-- Returns 1 if promised, 0 if this node has promised this token or a higher one
-- before, to another process.
if tonumber(redis.call('GET', KEYS[1]) or 0) >= tonumber(ARGV[1]) then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
